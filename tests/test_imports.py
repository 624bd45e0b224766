"""Who may import whom, read from the source: imports for type checkers alone do not count.

The table of packages is the one in ARCHITECTURE.md.
"""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import hgtrain

ROOT = Path(hgtrain.__file__).parent
TABLE = Path(__file__).parents[1] / "ARCHITECTURE.md"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
MAX_MODULES = 12
"""In a folder: what one can look through."""

MAX_LINES = 400


def read_table(text: str) -> dict[str, frozenset[str]]:
    """Return for each package which it may import, from the rows of the table in
    ARCHITECTURE.md."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    packages = frozenset(name for name, _ in rows)
    return {
        name: packages if cell.strip() == "everything" else frozenset(re.findall(r"`(\w+)`", cell))
        for name, cell in rows
    }


ALLOWED = read_table(TABLE.read_text(encoding="utf-8"))
GROUND_FLOOR = {
    "errors": set(),
    "coords": set(),
    "log": set(),
    "poses": set(),
    "signals": set(),
    "tensorflow_setup": {"log"},
    "files": {"errors"},
    "hdf5": {"errors"},
    "skeleton": {"errors"},
}
"""The modules of `hgtrain/` itself that all others may import, and which of them they import
themselves."""

HOMES = {
    "click": {"cli"} | {name for name in MODULES if name.startswith("commands.")},
    "yaml": {"config.load", "config.yaml", "sleap_import.run"},
    "pydantic": {
        "config.schema",
        "config.backbone",
        "config.head",
        "config.section",
        "config.load",
        "config.fields",
    },
    "pydantic_core": {"config.messages"},
    "h5py": {
        "hdf5",
        "data.builtin_datasets",
        "data.open",
        "data.sandbox.probe",
        "train.initial_weights",
        "sleap_import.weights",
        "predict.writers",
    }
    | {name for name in MODULES if name.startswith("data.formats.")},
    "tqdm": {"log"},
    "sleap_io": {"data.convert.sleap_io", "data.convert.labels", "data.convert.ultralytics"},
}
"""Which modules may import a library that has one."""

USES = {
    "tf.train.Checkpoint": {"train.checkpoint"},
    "tf.distribute": {"train.distributed.devices", "train.step"},
    "tf.saved_model": {"predict.saved_model", "export.export", "export.savedmodel"},
}
"""Which modules may use a part of TensorFlow that has a home."""

OPEN_UNTRIED = {"__init__", "data.open", "data.inspection.checks", "commands.inspect"}
OPEN_UNTRIED |= {"data.sandbox.open"}
"""Which modules may open a dataset without trying it out in another process.

`inspect` has done it in one.
"""

WITHOUT_TENSORFLOW = [
    *(name for name in MODULES if name.split(".")[0] in ("api", "config", "data", "commands")),
    *("errors", "coords", "files", "hdf5", "log", "poses", "signals", "skeleton"),
    "tensorflow_setup",
    *(name for name in MODULES if name.startswith(("next_frames", "rundir"))),
    *("planning.memory", "planning.input_spec", "planning.out_of_memory", "planning.suggest"),
    *("planning.dataset_stats", "planning.config_text", "planning.head_from_labels"),
    *("pipeline.cache", "pipeline.order", "pipeline.reader_processes"),
    *("predict.inputs", "predict.writers", "predict.stream", "predict.overlay_video"),
    "predict.saved_model",
    *(name for name in MODULES if name.startswith("train.distributed") and "workers" not in name),
    *("train.failures", "train.initial_weights", "train.loop", "train.observer", "train.plan"),
    *("evaluate.metrics", "evaluate.keypoint_errors", "evaluate.matching", "evaluate.calibration"),
    *("evaluate.pairs", "evaluate.instances"),
    "cli",
]
"""Importing these does not import TensorFlow, by whatever way."""

TAKE_A_CONFIG = ("config", "api", "commands", "rundir", "planning.suggest")
"""Packages and modules whose functions may take a whole config; others get sections of it."""


class Import(NamedTuple):
    """A module as it is called when imported, and whether it is where the importing module is
    imported."""

    name: str
    is_at_module_level: bool


def imports_in(node: ast.AST, is_at_module_level: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, is_at_module_level) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (
                Import(f"{child.module}.{alias.name}", is_at_module_level) for alias in child.names
            )
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from imports_in(child, is_at_module_level and not is_function)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def own_imports(module: str) -> set[str]:
    """Return the modules of hgtrain that one imports."""
    names = [
        name.split(".")[1:]
        for name, _ in imports_in(tree_of(module))
        if name.split(".")[0] == "hgtrain"
    ]
    # What is imported from a module is no module.
    found = {
        ".".join(parts) if ".".join(parts) in MODULES else ".".join(parts[:-1]) for parts in names
    }
    return {name or "__init__" for name in found}


def libraries(module: str, only_module_level: bool = False) -> set[str]:
    found = imports_in(tree_of(module))
    return {name.split(".")[0] for name, at_top in found if at_top or not only_module_level}


by_module = pytest.mark.parametrize("module", MODULES)


def package(module: str) -> str:
    return module.split(".")[0]


@by_module
def test_a_module_imports_packages_that_the_table_allows(module):
    home = package(module)
    if home in ("__init__", "__main__", "hgtrain"):
        return
    imported = {package(name) for name in own_imports(module)} - {home, "__init__"}
    if home in GROUND_FLOOR:
        assert imported <= GROUND_FLOOR[home]
    else:
        assert home in ALLOWED, f"say in ARCHITECTURE.md what {home} may import"
        assert imported <= ALLOWED[home] | GROUND_FLOOR.keys()


def test_the_table_names_packages_that_exist_and_each_of_them():
    packages = {package(module) for module in MODULES}
    assert packages == ALLOWED.keys() | GROUND_FLOOR.keys() | {"__init__", "__main__"}
    assert set().union(*ALLOWED.values()) <= ALLOWED.keys()


def test_a_table_that_allows_less_is_held():
    row = "| `heads` | what a network predicts | `model`, `data` |"
    assert read_table(row)["heads"] == {"model", "data"}


def test_packages_import_downwards():
    graphlib.TopologicalSorter(ALLOWED | {"cli": ALLOWED["cli"] - {"cli"}}).prepare()


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}))
def test_a_folder_can_be_looked_through(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py" or folder == ROOT]
    assert len(modules) <= MAX_MODULES


@by_module
def test_a_module_has_at_most_400_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("commands.")])
def test_no_command_imports_another(module):
    commands = {name for name in own_imports(module) if name.startswith("commands.")}
    assert commands <= {"commands.options"}


def test_imports_go_one_way():
    graphlib.TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_at_home_alone(library):
    assert {module for module in MODULES if library in libraries(module)} <= HOMES[library]


@pytest.mark.parametrize("part", USES)
def test_a_part_of_tensorflow_is_used_at_home_alone(part):
    users = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == part
    }
    assert users <= USES[part]


@by_module
def test_a_dataset_is_opened_after_it_was_tried_out(module):
    opening = {
        ast.unparse(node)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("open.open_all", "open.open_dataset")
    }
    opening |= {
        name
        for name, _ in imports_in(tree_of(module))
        if name in ("hgtrain.data.open.open_all", "hgtrain.data.open.open_dataset")
    }
    assert not opening or module in OPEN_UNTRIED


@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "signals",
        "data.sandbox.open",
        "cli",
        "rundir.layout",
        "files",
        "config.yaml",
        "train.plan",
    ],
)
def test_what_the_command_line_starts_with_needs_no_numpy(module):
    assert "numpy" not in libraries(module, only_module_level=True)


def test_what_answers_at_once_imports_no_tensorflow():
    code = """
import importlib, json, sys
loaded = {}
for name in json.loads(sys.argv[1]):
    importlib.import_module("hgtrain." + name)
    loaded[name] = sorted({"tensorflow", "keras"} & set(sys.modules))
print(json.dumps(loaded))
"""
    program = [sys.executable, "-c", code, json.dumps(WITHOUT_TENSORFLOW)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {name: [] for name in WITHOUT_TENSORFLOW}


def test_a_head_is_named_in_its_own_rooms_alone():
    words = ("single_instance", "TARGETS", "confmap_losses", "ConfmapsHead", "OffsetRefinementHead")
    found = {
        module: word
        for module, path in MODULES.items()
        if package(module) not in ("heads", "config")
        for word in words
        if word in path.read_text()
    }
    assert found == {}


def takers_of_a_config(tree: ast.Module) -> Iterator[str]:
    """Yield the parameters and the fields of classes whose type has `Config` in it."""
    for node in ast.walk(tree):
        typed: list[ast.arg | ast.AnnAssign] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            typed += [*given.posonlyargs, *given.args, *given.kwonlyargs]
            typed += filter(None, (given.vararg, given.kwarg))
        elif isinstance(node, ast.ClassDef):
            typed += [field for field in node.body if isinstance(field, ast.AnnAssign)]
        for one in typed:
            if one.annotation and re.search(r"\bConfig\b", ast.unparse(one.annotation)):
                yield f"{one.lineno}: {ast.unparse(one)}"


@by_module
def test_a_whole_config_is_taken_in_its_own_rooms_alone(module):
    may = any(f"{module}.".startswith(f"{room}.") for room in TAKE_A_CONFIG)
    assert may or list(takers_of_a_config(tree_of(module))) == []


@pytest.mark.parametrize(
    "taker",
    [
        "def f(config: Config): ...",
        "def f(config: 'Config | None'): ...",
        "def f(*, config: schema.Config): ...",
        "def f(*configs: Config): ...",
        "async def f(estimate: Callable[[Config], int]): ...",
        "def f():\n    def g(configs: Sequence['Config']): ...",
        "class A:\n    def f(self, config: Config): ...",
        "class A(NamedTuple):\n    config: Config",
    ],
)
def test_who_takes_a_whole_config_is_found(taker):
    assert len(list(takers_of_a_config(ast.parse(taker)))) == 1


def test_who_takes_a_section_or_makes_a_config_is_no_taker_of_one():
    source = "def f(training: TrainingConfig) -> Config:\n    config: Config = load()"
    assert list(takers_of_a_config(ast.parse(source))) == []


def test_a_run_s_records_have_one_owner():
    users = {
        module
        for module, path in MODULES.items()
        for word in ("read_json", "write_json")
        if re.search(rf"{word}\([^)]*\b(SPLIT|PROVENANCE)\b", path.read_text())
    }
    assert users == {"rundir.records"}


def test_the_hourglass_is_named_in_its_own_rooms_alone():
    found = {
        module
        for module in MODULES
        if package(module) not in ("model", "config")
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Name | ast.Attribute | ast.alias)
        and "hourglass" in ast.unparse(node).lower()
    }
    assert found == set()
