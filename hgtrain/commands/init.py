"""`hgtrain init`, top to bottom."""

from contextlib import closing
from pathlib import Path

from hgtrain import files
from hgtrain.data.builtin_datasets import draw_missing
from hgtrain.data.sandbox.open import open_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.log import say
from hgtrain.planning import suggest
from hgtrain.planning.input_spec import InputSpec
from hgtrain.planning.memory import Device, device_here, training_memory


def init(data: str, out: Path) -> None:
    """Write a config for a dataset on this machine to `out`, which must not be there yet.

    Raises:
        HgtrainError: The dataset cannot be used or the file is there.
    """
    if out.exists():
        raise RunError(f"{out} is there already: choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise RunError(f"{out} cannot be written: there is no such folder")
    looked = _looked(data)
    device = device_here()
    kind = "CPU" if device.name == "CPU" else "GPU"
    choice = suggest.choose(looked, kind)
    size, batch_size = _fitting(looked, choice, kind, device)
    name = suggest.data_name(data, out)
    files.write_text(
        out,
        suggest.config_text(suggest.Proposal(name, looked, choice, size, batch_size, device, kind)),
    )


def _looked(data: str) -> suggest.DatasetStats:
    draw_missing([data])
    try:
        return _look(data, annotated_only=True)
    except DatasetError as error:
        try:
            looked = _look(data, annotated_only=False)
        except DatasetError:
            raise error from None
    say(f"{data} marks every keypoint as not annotated; the config uses them all the same")
    return looked


def _look(data: str, annotated_only: bool) -> suggest.DatasetStats:
    with closing(open_dataset(data, annotated_only)) as dataset:
        return suggest.dataset_stats(dataset, annotated_only)


def _fitting(
    looked: suggest.DatasetStats, choice: suggest.Choice, kind: str, device: Device
) -> tuple[suggest.Size, int]:
    """Return the largest network and batch whose training fits into half of the device's memory."""
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from hgtrain.planning.summary import demand_of

    for size in suggest.SIZES[kind]:
        config = suggest.as_config(choice, size)
        sections = (config.data, config.model, config.training)
        demand = demand_of(InputSpec(*sections, looked.image_shape, looked.skeleton))
        for batch_size in suggest.BATCH_SIZES:
            if training_memory(demand, batch_size)["total"] <= device.memory_bytes / 2:
                return size, min(batch_size, looked.frames)
    return suggest.SIZES[kind][-1], 1
