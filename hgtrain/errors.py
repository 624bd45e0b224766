"""The mistakes a user can make, each a class.

`hgtrain` prints them as one message and exits with status 1.

Anything that is not an `HgtrainError` is a defect of hgtrain and shows its traceback.
"""

LONGEST_VALUE = 120


def brief_repr(value: object) -> str:
    """Return a value that a file holds as messages have it: on one line, its end cut off."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


class HgtrainError(Exception):
    """What the user gave cannot be used.

    The text says what, where, what was expected and the fix.
    """


class ConfigError(HgtrainError):
    """One or more mistakes in a config file or a `--set`, one line each."""


class DatasetError(HgtrainError):
    """A dataset that cannot be opened, read or used; the text names the file and the HDF5 path."""


class RunError(HgtrainError):
    """A run directory, checkpoint or device that cannot be used."""
