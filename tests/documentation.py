"""README.md and docs/ as tests read them: blocks of code, the command lines in them, links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
TOP_LEVEL = sorted(ROOT.glob("*.md"))

_BLOCK = re.compile(
    r"^(?:<!-- ([^\n]+?) -->\n)?^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_ENDS = frozenset("();<>|&")
"""Characters that shells end a command's arguments with."""


class Block(NamedTuple):
    """A fenced block: its language, its text, and the comment on the line above."""

    language: str
    text: str
    mark: str

    @property
    def is_run(self) -> bool:
        """Whether what is in it is to be run: it has no mark, as `not run in CI: needs Slurm`."""
        return not self.mark


def named(page: Path) -> str:
    """Return a page's path as the repository has it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, directives of Sphinx left out."""
    return [
        Block(language, text, mark or "")
        for mark, language, text in _BLOCK.findall(page.read_text())
        if not language.startswith("{")
    ]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """Return what is in backticks in the prose of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each call of hgtrain in a block of commands."""
    for line in _lines_of_commands(block):
        words = _words(line)
        for place, word in enumerate(words):
            if word in ("hgtrain", ".venv/bin/hgtrain"):
                yield list(_until_end(words[place + 1 :]))


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return text.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def links(page: Path) -> list[str]:
    """Return where a page's links and pictures lead, those to other sites left out."""
    return re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page))


def _lines_of_commands(block: Block) -> Iterator[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "bash":
        yield from lines
    elif block.language in ("console", "text"):
        yield from (line.removeprefix("$ ") for line in lines if line.startswith("$ "))


def _words(line: str) -> list[str]:
    words = shlex.shlex(line, posix=True, punctuation_chars="".join(_ENDS))
    words.whitespace_split = True
    return list(words)


def _until_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if set(word) <= _ENDS:
            return
        yield word
