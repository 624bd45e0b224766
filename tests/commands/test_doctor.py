import pytest

from hgtrain.commands import doctor
from hgtrain.commands.doctor import cpu_features, doctor_text, not_loaded, problems

H200 = [{"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.1"}]
SEEN = {
    "version": "2.21.0", "is_built_with_cuda": True, "cuda": "12.5.1", "cudnn": "9", "gpus": [],
    "error": None,
    "not_loaded": [],
}  # fmt: skip
LOG = (
    "I tsl/dso_loader.cc:70] Could not load dynamic library 'libcudnn.so.9'; dlerror: "
    "libcudnn.so.9: cannot open "
    "shared object file; LD_LIBRARY_PATH: /x\nW Could not load dynamic library "
    "'libcufft.so.11'\nI something else\n"
)


@pytest.fixture(autouse=True)
def visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_nothing_is_wrong_without_a_gpu():
    assert problems([], SEEN) == []


def test_nothing_is_wrong_where_tensorflow_sees_the_gpu():
    assert problems(H200, SEEN | {"gpus": ["/physical_device:GPU:0"]}) == []


def test_libraries_that_failed_to_load_are_taken_from_the_log():
    reason = "libcudnn.so.9: cannot open shared object file"
    assert not_loaded(LOG) == [
        {"library": "libcudnn.so.9", "reason": reason}, {"library": "libcufft.so.11", "reason": ""},
    ]  # fmt: skip


def test_a_library_that_failed_to_load_is_named_with_the_line_that_fixes_it():
    (problem,) = problems(H200, SEEN | {"not_loaded": not_loaded(LOG)})
    assert problem["text"] == (
        "the driver shows NVIDIA H200, but TensorFlow sees none and could not load libcudnn.so.9 "
        "(libcudnn.so.9: "
        "cannot open shared object file), libcufft.so.11 (not found); it needs CUDA 12.5.1"
    )
    assert problem["fix"] == 'pip install "tensorflow[and-cuda]==2.21.0"'


def test_a_build_without_cuda_is_named():
    (problem,) = problems(H200, SEEN | {"is_built_with_cuda": False})
    assert problem["text"].endswith("this TensorFlow is built without CUDA")
    assert problem["fix"].startswith("pip uninstall -y tensorflow-cpu; ")


def test_a_hidden_gpu_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (problem,) = problems(H200, SEEN)
    assert (problem["text"][-14:], problem["fix"]) == (
        "which hides it",
        "unset CUDA_VISIBLE_DEVICES",
    )


def test_a_tensorflow_that_cannot_be_imported_is_named():
    (problem,) = problems([], {"gpus": [], "error": "ImportError: libx", "not_loaded": []})
    assert problem["text"] == "TensorFlow cannot be imported: ImportError: libx"


def test_cpu_features_are_those_that_matter():
    assert cpu_features("processor\t: 0\nflags\t\t: fpu avx2 sse fma\n") == ["avx2", "fma"]


def test_without_a_list_there_are_no_features():
    assert cpu_features("") == []


def test_no_driver_shows_no_gpu(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert doctor.driver_gpus() == []


def test_tensorflow_is_looked_at_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(doctor, "LOOK", "import sys; sys.exit('no such library')")
    assert doctor.look_at_tensorflow() == {"gpus": [], "error": "no such library", "not_loaded": []}


def test_a_tensorflow_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "LOOK", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    assert doctor.look_at_tensorflow()["error"] == "importing it took longer than 0.2 seconds"


@pytest.fixture
def examined(monkeypatch):
    monkeypatch.setattr(doctor, "look_at_tensorflow", lambda: SEEN)
    monkeypatch.setattr(doctor, "driver_gpus", lambda: H200)
    return doctor.examine()


def test_versions_and_the_machine_are_in_the_document(examined):
    assert examined["versions"]["tensorflow"] == "2.21.0"
    assert examined["memory_bytes"] > 2**28
    assert examined["cpu"]["cores"] >= 1


def test_the_text_ends_with_problem_and_fix(examined):
    lines = doctor_text(examined).splitlines()
    assert lines[-2].startswith("problem: the driver shows NVIDIA H200, but TensorFlow sees none")
    assert lines[-1] == '    fix: pip install "tensorflow[and-cuda]==2.21.0"'


def test_the_text_says_that_nothing_is_wrong(examined):
    assert doctor_text(examined | {"problems": []}).endswith("\nnothing is wrong")
