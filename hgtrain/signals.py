"""Ctrl-C and SIGTERM: the first asks for a stop, the second stops at once.

SIGUSR1 asks for a checkpoint.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class StoppedError(BaseException):
    """A signal ends the process.

    Not an Exception, so that nothing on the way takes it for a failure.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.is_explained = False
        """Whether the user was told how to go on."""

    @property
    def exit_status(self) -> int:
        """Return the status shells give to a process that a signal ended."""
        return 128 + self.signum


class StopRequest:
    """Whether a stop was asked for, and by which signal.

    Outside `postponed` a signal stops at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._is_postponed = False
        self._is_save_wanted = False

    def __bool__(self) -> bool:
        return self.signum is not None

    def join(self, signum: int) -> None:
        """Take a signal that another process got for one of this process's own; 0 for none."""
        self.signum = signum or self.signum

    def take_save(self) -> bool:
        """Return whether SIGUSR1 came since the last call."""
        is_wanted, self._is_save_wanted = self._is_save_wanted, False
        return is_wanted

    def leave(self) -> NoReturn:
        """Raise StoppedError for the signal that asked for the stop."""
        raise StoppedError(self.signum if self.signum is not None else signal.SIGINT)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        is_first = self.signum is None
        self.signum = signum
        if not (self._is_postponed and is_first):
            raise StoppedError(signum)

    def _note_save(self, signum: int, frame: FrameType | None) -> None:
        self._is_save_wanted = True

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle SIGINT, SIGTERM and SIGUSR1 within the block.

        Raises StoppedError at the end of a block, or where `postponed` begins, that has swallowed
        the one of a signal: what is raised while a library is imported, or in a callback of it,
        does not always come through.
        """
        handlers = {
            signal.SIGINT: self._handle,
            signal.SIGTERM: self._handle,
            signal.SIGUSR1: self._note_save,
        }
        before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        self._leave_if_asked()

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Only note the first signal within the block.

        The block asks for it, or StoppedError is raised at its end.
        """
        self._leave_if_asked()
        self._is_postponed = True
        try:
            yield
        finally:
            self._is_postponed = False
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self:
            self.leave()
