"""README.md and docs/: commands, options, keys and links are there. `test_docs_commands` runs
them."""

import itertools
import re
from pathlib import Path

import pytest
import yaml
from config_tables import reference, values_of
from documentation import (
    DOCS,
    PAGES,
    README,
    ROOT,
    TOP_LEVEL,
    Block,
    anchors,
    blocks,
    command_lines,
    inline_code,
    links,
    named,
    slug,
)
from top_level_pages import PAGES as INCLUDED
from top_level_pages import relinked

from hgtrain.cli import commands
from hgtrain.config.load import config_json_schema, load_config
from hgtrain.errors import ConfigError

SECTIONS = ("data", "augmentation", "model", "training", "checkpoint", "output")
KEY = re.compile(rf"((?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+)(?:: .*)?")
BUILTIN = "data: {train: builtin:flies}\n"

each_page = pytest.mark.parametrize("page", PAGES, ids=named)


def schema_at(key: str) -> dict | None:
    """Return the JSON Schema of a dotted key; None where there is no such key."""
    schema = document = config_json_schema()
    for part in key.split("."):
        if (schema := schema.get("properties", {}).get(part)) is None:
            return None
        if "$ref" in schema:
            schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


@each_page
def test_command_lines_are_what_hgtrain_takes(page):
    for block in blocks(page):
        for name, *arguments in command_lines(block):
            # Raises click's UsageError for unknown options, values that are none of the choices,
            # and what is missing.
            commands.commands[name].make_context(name, arguments)


@each_page
def test_commands_and_options_in_the_text_are_there(page):
    for code in inline_code(page):
        words = code.split()
        if words[:1] == ["hgtrain"] and len(words) > 1 and words[1] != "COMMAND":
            command = commands.commands[words[1]]
            there = {option for param in command.params for option in param.opts} | {"--help"}
            assert {word for word in words[2:] if word.startswith("-")} <= there, code


@each_page
def test_options_that_the_text_names_alone_are_there(page):
    there = {
        option
        for command in commands.commands.values()
        for param in command.params
        for option in param.opts
    }
    sources = "".join(path.read_text() for path in (ROOT / "scripts").glob("*.py"))
    of_scripts = set(re.findall(r'"(--[a-z-]+)"', sources))
    named_alone = {word for code in inline_code(page) for word in code.split() if word[:2] == "--"}
    # The latter is Slurm's.
    assert named_alone <= there | of_scripts | {"--help", "--signal=USR1"}


@each_page
def test_keys_in_the_text_are_keys_of_a_config(page):
    for code in inline_code(page):
        if (match := KEY.fullmatch(code)) and not code.endswith((".py", ".md")):
            assert schema_at(match[1]) is not None, code


@each_page
def test_overrides_are_keys_and_values_of_a_config(page, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text(BUILTIN)
    for block in blocks(page):
        for arguments in command_lines(block):
            pairs = itertools.pairwise(arguments)
            load_config(config, [value for option, value in pairs if option == "--set"])


@each_page
def test_configs_are_valid(page, tmp_path):
    for block in blocks(page):
        if block.language == "yaml":
            config = tmp_path / "a.yaml"
            config.write_text(block.text)
            load_config(config)


@each_page
def test_blocks_have_a_language_that_says_what_becomes_of_them(page):
    assert {block.language for block in blocks(page)} <= {
        "bash",
        "console",
        "text",
        "yaml",
        "python",
    }


@each_page
def test_marks_say_what_is_lacking(page):
    for mark in {block.mark for block in blocks(page)} - {""}:
        assert re.fullmatch(r"not run in CI: needs .+|set up and (run|test)", mark), mark


@pytest.mark.parametrize("page", sorted({*PAGES, *TOP_LEVEL}), ids=named)
def test_links_lead_to_pages_and_headings_that_are_there(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        # Pages that Sphinx fills have headings that only it knows.
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_scripts_and_tests_in_the_text_are_there(page):
    text = page.read_text()
    for path in re.findall(r"\b((?:scripts|tests|configs)/[\w/.-]+\.(?:py|yaml))", text):
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_table_of_contents_once():
    listed = [
        name
        for toctree in re.findall(
            r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.S
        )
        for name in toctree.splitlines()
        if name and not name.startswith(":")
    ]
    assert sorted(listed) == sorted(page.stem for page in DOCS.glob("*.md") if page.stem != "index")


def test_the_readme_is_short_and_its_two_set_ups_are_the_only_ones():
    text = README.read_text()
    assert len(text.splitlines()) < 150
    assert [block.mark for block in blocks(README) if "python3 -m venv" in block.text] == [
        "set up and run",
        "set up and test",
    ]


def test_mistakes_are_reported_as_the_first_training_shows(tmp_path, monkeypatch):
    (block,) = (b for b in blocks(DOCS / "first-training.md") if b.language == "text")
    lines = ["# A comment."] * 20
    lines[:2] = "data:", "  train: builtin:flies"
    lines[11:14] = "model:", "  backbone:", "    max_stride: 48"
    lines[18:20] = "training:", "  batchsize: 4"
    monkeypatch.chdir(tmp_path)
    Path("flies.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as raised:
        load_config("flies.yaml")
    assert block.text == f"$ hgtrain fit flies.yaml\nError: {raised.value}\n"


def test_links_of_included_pages_lead_to_the_documentation_or_the_repository():
    text = "[a](ARCHITECTURE.md), [b](docs/formats.md#the-hgtrain-format), [c](hgtrain/cli.py)"
    assert relinked(text + ", [d](https://example.org/x.md)") == (
        "[a](architecture.md), [b](formats.md#the-hgtrain-format), "
        "[c](https://github.com/hgtrain/hgtrain/blob/main/hgtrain/cli.py), "
        "[d](https://example.org/x.md)"
    )


def test_a_link_of_an_included_page_to_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"a link to docs/nowhere\.md, which does not exist"):
        relinked("[a](docs/nowhere.md)")


def test_top_level_pages_are_included():
    for source, page in INCLUDED.items():
        assert f"{{include}} ../{source}" in (DOCS / page).read_text()


def keys_in(schema: dict, document: dict) -> set[str]:
    """Return the names of all keys below a section that are no sections themselves."""
    names = set()
    for name, value in schema["properties"].items():
        inner = document["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        names |= keys_in(inner, document) if "properties" in inner else {name}
    return names


def test_the_config_reference_has_every_key():
    schema = config_json_schema()
    rows = re.findall(r"^\| `(\w+)` \|", reference(), re.MULTILINE)
    assert set(rows) == keys_in(schema, schema)
    assert "keypoints" in rows
    assert "centroid_jitter" in rows


@pytest.mark.parametrize(
    "row",
    [
        "| `train` | text, or a list of text | required | A file, a list of files, builtin:flies "
        "or "
        "builtin:fly-groups |",
        "| `stacks` | whole number from 1 to 64 | `3` | Hourglasses in a row, each supervised; the "
        "papers have 4 and 8 | all |",
        "| `stem_filters` | whole number from 1 to 4096 | `128` | hourglass: filters of the stem's "
        "first convolution | `hourglass` |",
        "| `scale` | a list of 2, each number from 0.01 to 100, or `null` | `[0.9, 1.1]` | Range "
        "of "
        "the factor of size |",
        "| `assignment` | `exact`, `greedy` | `exact` | multi_instance: how peaks are matched "
        "along "
        "an edge | `multi_instance` |",
        "| `offsets` | true, false | `false` | Predict too where in its cell a keypoint lies | all "
        "|",
        "| `run_dir` | text, or `null` | `null` | Run directory; null: runs/&lt;config "
        "name>-&lt;time>"
        " |",
    ],
)
def test_rows_of_the_config_reference_say_values_default_meaning_and_types(row):
    assert row in reference().splitlines()


def test_sections_come_in_the_order_of_a_config():
    assert re.findall(r"^## (.+)$", reference(), re.MULTILINE) == [
        "data",
        "augmentation",
        "model",
        "model.backbone",
        "model.head",
        "training",
        "checkpoint",
        "output",
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "object"},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
    ],
)
def test_a_kind_of_value_without_words_is_an_error_not_left_out(value):
    with pytest.raises(ValueError, match=re.escape(f"{value}")):
        values_of(value)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("hgtrain doctor\n", [["doctor"]]),
        (
            "hgtrain fit a.yaml \\\n  --set training.epochs=3  # more\n",
            [["fit", "a.yaml", "--set", "training.epochs=3"]],
        ),
        (
            "(cd x && .venv/bin/hgtrain doctor) > out; hgtrain init --schema | less\n",
            [["doctor"], ["init", "--schema"]],
        ),
        (
            """A='{"b": 1}' srun hgtrain fit "my config.yaml" --resume & pid=$!\n""",
            [["fit", "my config.yaml", "--resume"]],
        ),
    ],
)
def test_command_lines_are_read_as_a_shell_does(text, lines):
    assert list(command_lines(Block("bash", text, ""))) == lines


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("The figures of `--json`", "the-figures-of---json"),
        ("Is the GPU used?", "is-the-gpu-used"),
        ("Resume, and Slurm", "resume-and-slurm"),
    ],
)
def test_headings_have_the_anchors_that_github_gives(heading, anchor):
    assert slug(heading) == anchor


def test_configs_in_pages_are_whole():
    several = [
        yaml.safe_load(block.text)["model"]["head"]["type"]
        for block in blocks(DOCS / "several-animals.md")
        if block.language == "yaml"
    ]
    assert several == ["multi_instance", "centered_instance"]
