"""A terminal of some width, and what is on it."""

import fcntl
import os
import re
import select
import struct
import termios
from contextlib import contextmanager


class Screen:
    """What a program has written to a terminal so far."""

    def __init__(self, master):
        self._master, self._text = master, ""

    @property
    def text(self):
        while select.select([self._master], [], [], 0)[0]:
            self._text += os.read(self._master, 65536).decode()
        return self._text

    @property
    def line(self):
        """The line that is written last, without colours."""
        last = re.split(r"[\r\n]", re.sub(r"\x1b\[[\d;]*\w", "", self.text))[-1]
        return last.rstrip()


@contextmanager
def terminal(monkeypatch, columns):
    """Make stderr a terminal of a width; gives its screen."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with monkeypatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as file:
        patch.setattr("sys.stderr", file)
        yield Screen(master)
    os.close(master)
