"""Make links of the repository's top-level pages right where the documentation includes them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = "https://github.com/hgtrain/hgtrain"
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
ROOT = Path(__file__).resolve().parents[2]


def relinked(text: str) -> str:
    """Return Markdown of the top level with its relative links as they are from docs/.

    Raises:
        ValueError: There is no such file.
    """
    return re.sub(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)", _relinked, text)


def _relinked(link: re.Match[str]) -> str:
    path, anchor = link[1], link[2] or ""
    if not (ROOT / path).exists():
        raise ValueError(f"a link to {path}, which does not exist")
    if path in PAGES:
        return f"]({PAGES[path]}{anchor})"
    if path.startswith("docs/"):
        return f"]({path.removeprefix('docs/')}{anchor})"
    return f"]({REPOSITORY}/blob/main/{path}{anchor})"


def _relink(app: "Sphinx", path: Path, parent: str, content: list[str]) -> None:
    if path.parent == Path(".."):
        content[0] = relinked(content[0])


def setup(app: "Sphinx") -> dict[str, bool]:
    """Make the links right as files are included."""
    app.connect("include-read", _relink)
    return {"parallel_read_safe": True}
