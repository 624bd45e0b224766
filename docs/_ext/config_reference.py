"""The directive `config-reference`: all keys of a config, from the schema."""

from config_tables import reference
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ConfigReference(SphinxDirective):
    """Gives a section with a table for each section of a config."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return self.parse_text_to_nodes(reference(), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known to Sphinx."""
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True}
