"""How Sphinx builds the documentation: `sphinx-build -W docs docs/_build`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import hgtrain  # noqa: E402

project = "hgtrain"
author = "The hgtrain maintainers"
copyright = "2026, The hgtrain maintainers"
release = version = hgtrain.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "config_reference",
    "top_level_pages",
]
exclude_patterns = ["_build"]
default_role = "code"  # Docstrings have names in single backticks.
smartquotes = False  # They would make one dash of the two of an option.

myst_heading_anchors = 3
myst_enable_extensions = ["deflist", "colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # Attributes stay where the docstring lists them.

html_theme = "furo"
html_title = f"hgtrain {release}"
html_static_path = ["_static"]
html_theme_options = {
    "source_repository": "https://github.com/hgtrain/hgtrain/",
    "source_branch": "main",
    "source_directory": "docs/",
}
