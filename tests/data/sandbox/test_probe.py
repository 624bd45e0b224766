import struct

import h5py
import numpy as np
import pytest
from endless import make_endless

from hgtrain.data.convert.convert import convert
from hgtrain.data.sandbox import probe, process
from hgtrain.data.sandbox.probe import probe_hdf5, read_everything
from hgtrain.errors import DatasetError
from hgtrain.sleap_import.run import import_sleap

ENDLESS = "the HDF5 library ran out of CPU time reading it"


def labels(path):
    """Write what looks like labels of another program, with a text in the heap."""
    with h5py.File(path, "w") as file:
        file["a/b/values"] = np.arange(10)
        file["a/b"].attrs["names"] = np.array(["nose", "tail"], h5py.string_dtype())
    return path


def test_every_name_attribute_and_value_is_read_once(tmp_path, monkeypatch):
    with h5py.File(labels(tmp_path / "a.h5"), "r+") as file:
        file["again"] = file["a/b"]
        file["a/b/round"] = file["a"]
        file["soft"] = h5py.SoftLink("/a/b/values")
        file["outside"] = h5py.ExternalLink("other.h5", "/images")
        file["number"] = 3
        file["empty"] = h5py.Empty("f4")
    attributes, values = [], []
    monkeypatch.setattr(probe, "_read_attributes", lambda item: attributes.append(item.name))
    monkeypatch.setattr(probe, "_read_values", lambda item, end: values.append(item.name))
    assert read_everything([str(tmp_path / "a.h5")]) == {}
    # What is reached in two ways has the name of the first.
    assert sorted(values) == ["/again/values", "/empty", "/number"]
    assert sorted(attributes) == ["/", "/a", "/again", "/again/values", "/empty", "/number"]


def test_values_of_all_kinds_can_be_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["number"], file["empty"], file["none"] = 3, h5py.Empty("f4"), np.zeros((0, 3))
        file["texts"] = np.array(["a", "b"], h5py.string_dtype())
        file.create_dataset("unwritten", (2**40, 8, 8), chunks=(1, 8, 8))
    probe_hdf5(str(tmp_path / "a.h5"))


def with_a_long_double(path):
    """Write a table of fields of 8 bytes; by the bias of its exponents one needs 16 in memory."""
    with h5py.File(path, "w") as file:
        file["points"] = np.zeros(3, [("x", "f8"), ("y", "f8"), ("score", "f8")])
    layout = "<HHBBBBI"
    double = struct.pack(layout, 0, 64, 52, 11, 0, 52, 1023)
    odd = struct.pack(layout, 0, 64, 52, 11, 0, 52, 768)
    data = path.read_bytes()
    begin, x, y, end = data.split(double)
    path.write_bytes(begin + double + x + odd + y + double + end)
    return path


def test_a_table_that_would_be_read_beyond_its_memory_is_refused_before_it_is_read(tmp_path):
    path = with_a_long_double(tmp_path / "a.slp")
    with pytest.raises(
        DatasetError, match=rf"^{path}:/points has fields that lie over one another"
    ):
        read_everything([str(path)])


@pytest.mark.parametrize("shape", [(2**40,), (2**40, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [[("x", "f8")], h5py.string_dtype()])
def test_a_table_that_declares_far_more_than_is_stored_is_refused(tmp_path, shape, dtype):
    with h5py.File(labels(tmp_path / "a.slp"), "r+") as file:
        file.create_dataset("sessions_json", shape, dtype, chunks=(8, 1, 1, 1)[: len(shape)])
    with pytest.raises(
        DatasetError, match=r"a\.slp:/sessions_json declares [\d,]+ bytes, but the file stores 0"
    ):
        read_everything([str(tmp_path / "a.slp")])


def test_convert_refuses_a_file_that_hdf5_reads_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "STEP_S", 1.0)
    path = make_endless(labels(tmp_path / "a.slp"))
    with pytest.raises(DatasetError, match=f"^{path}: {ENDLESS}"):
        convert(
            str(path), tmp_path / "b.h5", predictions=False, progress=lambda frames, total: frames
        )


def test_import_sleap_refuses_weights_that_hdf5_reads_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("hgtrain.sleap_import.run.read_sleap_config", lambda model: None)
    monkeypatch.setattr(process, "STEP_S", 1.0)
    path = make_endless(labels(tmp_path / "best_model.h5"))
    with pytest.raises(DatasetError, match=f"^{path}: {ENDLESS}"):
        import_sleap(tmp_path, tmp_path / "run", (), ())
