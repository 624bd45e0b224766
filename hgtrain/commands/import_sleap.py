"""`hgtrain import-sleap`, top to bottom."""

from collections.abc import Sequence
from pathlib import Path

from hgtrain.log import say


def import_sleap(model: Path, out: Path, train: Sequence[str], validation: Sequence[str]) -> None:
    """Write the run of a SLEAP training folder, or of the config in it, to `out`.

    Notes go to the log.

    Raises:
        HgtrainError: The folder or the labels cannot be used.
    """
    from hgtrain.sleap_import.training_config import CONFIG_FILE, read_sleap_config

    if model.name == CONFIG_FILE and model.is_file():
        model = model.parent
    # Before TensorFlow, so that a wrong folder is answered at once.
    read_sleap_config(model)
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from hgtrain.sleap_import.run import import_sleap

    for note in import_sleap(model, out, train, validation):
        say(note)
