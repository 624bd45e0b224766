"""The program `hgtrain`, also as `python -m hgtrain`."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line.

    Ctrl-C and SIGTERM end it from its first moment on, while it is still being imported.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    # One that whoever started this has set to be ignored stays so.
    before = {
        signum: handler
        for signum in signals
        if (handler := signal.getsignal(signum)) != signal.SIG_IGN
    }
    for signum in before:
        signal.signal(signum, _end)
    from hgtrain.cli import main as run

    for signum, handler in before.items():
        signal.signal(signum, handler)
    run()


def _end(signum: int, frame: FrameType | None) -> None:
    # Nothing has been begun. An exception would not always come through a library's import.
    os._exit(128 + signum)


if __name__ == "__main__":
    main()
