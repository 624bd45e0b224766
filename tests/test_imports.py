"""Who may import whom, read from the source: imports for type checkers alone do not count, those in functions do."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import hgtrain

ROOT = Path(hgtrain.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
FORMAT = frozenset({"errors", "data.dataset", "data.hdf5", "data.images"})
NOTHING: frozenset[str] = frozenset()
ALL_BUT_THE_COMMAND_LINE = frozenset(MODULES) - {"cli", "__main__"}

ALLOWED = {
    # What knows nothing of hgtrain.
    **dict.fromkeys(["__init__", "errors", "coords", "stopping", "loss", "metrics", "overlay"], NOTHING),
    **dict.fromkeys(["receptive_field", "export_readme", "report_frames", "report_plots", "summary_table"], NOTHING),
    **dict.fromkeys(["data", "data.dataset", "data.targets", "model.blocks", "model.heads"], NOTHING),
    **dict.fromkeys(["train", "train.log", "train.loop", "train.optimizer", "train.schedule", "train.step"], NOTHING),
    # The config.
    "yaml_source": NOTHING,
    **dict.fromkeys(["config_errors", "config_fields", "config_rules"], frozenset({"yaml_source"})),
    "config_source": {"errors", "yaml_source"},
    "config": {"config_errors", "config_fields", "config_rules", "config_source", "errors", "yaml_source"},
    # Datasets.
    "data.hdf5": {"errors", "data.dataset"},
    "data.images": {"errors", "data.dataset", "data.hdf5"},
    "data.package_images": {"errors", "data.hdf5", "data.images"},
    **dict.fromkeys(["data.deepposekit", "data.leap", "data.native"], FORMAT),
    "data.sleap_package": FORMAT | {"data.package_images"},
    "data.fly_anatomy": {"data.dataset"},
    "data.fly_painting": {"data.fly_anatomy"},
    "data.builtin": {"data.dataset", "data.fly_anatomy", "data.fly_painting"},
    "data.concatenated": {"data.dataset", "data.images"},
    "data.source": FORMAT
    | {"data.builtin", "data.concatenated", "data.deepposekit", "data.leap", "data.native", "data.sleap_package"},
    "data.foreign_images": {"errors", "foreign", "frames"},
    "data.convert": FORMAT
    | {"data.foreign_images", "data.native", "data.sleap_package", "data.walk", "foreign", "trial"},
    "data.walk": {"apart", "data.hdf5", "errors"},
    "data.augment": {"coords"},
    "data.resize": {"coords"},
    "data.readers": {"errors", "data.dataset"},
    "data.pipeline": {"data.augment", "data.dataset", "data.readers", "data.resize"},
    # The network and what it gives.
    "model": {"model.blocks", "model.hourglass"},
    "model.hourglass": {"model.blocks"},
    "model.network": {"config", "model.heads", "model.hourglass"},
    "model.training_pass": NOTHING,
    "model.sleap_weights": {"data.hdf5", "errors"},
    "peaks": {"coords"},
    "model.any_size": NOTHING,
    "predictor": {"data.resize", "model.any_size", "peaks"},
    "metrics_extra": {"metrics"},
    "evaluate": {"data.dataset", "data.source", "errors", "metrics", "metrics_extra", "predictor"},
    # Training.
    "rundir": {"errors"},
    "cluster": {"errors"},
    "meeting": {"cluster", "errors", "train.log"},
    "device": {"cluster", "config", "errors", "train.workers"},
    "train.checkpoint": {"errors", "train.log"},
    "train.workers": {"cluster", "errors", "stopping", "train.loop"},
    "initial_weights": {"apart", "data.hdf5", "errors", "rundir"},
    "provenance": {"config", "data.source"},
    "caching": {"config", "data.dataset"},
    "record": {"caching", "config", "data.source", "overlay", "rundir", "train.log", "train.loop"},
    "trainer": {"config", "coords", "data.pipeline", "data.readers", "data.resize", "data.source", "data.targets"}
    | {"device", "errors", "faults", "initial_weights", "loss", "model.network", "model.training_pass", "peaks"}
    | {"predictor", "rundir"}
    | {"train.checkpoint", "train.log", "train.loop", "train.optimizer", "train.step"},
    # What is said about a config, a run or a dataset.
    "memory": {"errors"},
    "described": {"config", "data.dataset", "data.source", "errors", "rundir", "trial"},
    "init_config": {"config", "coords", "data.dataset", "data.source", "described", "memory", "yaml_source"},
    "summary": {"config", "coords", "described", "memory", "model.network", "model.training_pass", "receptive_field"},
    "trial_steps": {"config", "device", "loss", "summary", "train.step", "trainer"},
    "augmented": {"config", "coords", "data.pipeline", "data.source"},
    "report": {"augmented", "config", "data.dataset", "data.source", "errors", "evaluate", "metrics_extra", "rundir"}
    | {"report_frames", "report_plots", "train.log"},
    "report_comparison": {"config", "errors", "report", "report_plots", "rundir", "train.log"},
    "xla_choice": {"config", "data.source", "errors", "rundir", "summary", "train.log", "trial_steps"},
    # Finished runs.
    "opened_run": {"config", "data.dataset", "device", "errors", "predictor", "rundir", "trainer"},
    "frames": {"data.dataset", "data.deepposekit", "data.hdf5", "data.native", "data.source", "errors", "trial"},
    "foreign": {"data.dataset", "errors"},
    "prediction_files": {"data.dataset", "errors", "foreign", "frames"},
    "predict": {"errors", "frames", "prediction_files", "train.log"},
    "overlay_video": {"data.dataset", "errors", "frames", "prediction_files"},
    "exported": {"data.dataset", "device", "errors", "rundir"},
    "export_formats": {"device", "errors", "predictor"},
    "export": {"coords", "errors", "export_formats", "export_readme", "predictor", "rundir"},
    "sleap_config": FORMAT,
    "import_sleap": {
        "config",
        "data.dataset",
        "data.hdf5",
        "data.source",
        "data.walk",
        "errors",
        "evaluate",
        "model.network",
    }
    | {"model.sleap_weights", "rundir", "sleap_config", "trial"},
    # What each command does, and the command line.
    "faults": {"config", "data.pipeline", "data.source", "described", "errors", "memory", "summary", "train.log"},
    "apart": {"errors", "train.log"},
    "trial": {"apart", "data.dataset", "data.source", "errors"},
    "inspect_data": {"apart", "data.dataset", "data.source", "errors"},
    "inspect_plot": {"data.dataset", "errors"},
    "doctor": NOTHING,
    **dict.fromkeys(["run", "run_data", "run_models", "run_results"], ALL_BUT_THE_COMMAND_LINE),
    "cli": {"__init__", "config", "errors", "run", "run_data", "run_models", "run_results"}
    | {"stopping", "summary_table", "trial"},
    "__main__": {"cli"},
}

HOMES = {
    "click": {"cli"},
    "yaml": {"config", "yaml_source", "import_sleap"},
    "pydantic": {"config", "config_fields"},
    "pydantic_core": {"config_errors"},
    "h5py": {"data.hdf5", "data.images", "data.package_images", "data.source", "data.native", "data.deepposekit"}
    | {"data.leap", "data.sleap_package", "data.walk", "initial_weights", "model.sleap_weights", "prediction_files"},
    "tqdm": {"train.log"},
    "sleap_io": {"foreign"},
}
"""Which modules may import a library that has one."""

USES = {
    "tf.train.Checkpoint": {"train.checkpoint"},
    "tf.distribute": {"device", "train.step"},
    "tf.saved_model": {"exported", "export", "export_formats"},
}
"""Which modules may use a part of TensorFlow that has a home."""

OPEN_UNTRIED = {"__init__", "data.source", "inspect_data", "run_data", "trial"}
"""Which modules may open a dataset without trying it out in another process: `run_data` has inspected it in one."""

WITHOUT_TENSORFLOW = [
    *(name for name in MODULES if name.startswith("config")),
    *("apart", "doctor", "faults", "inspect_data", "inspect_plot", "run_data", "trial"),
    *("caching", "cluster", "meeting", "provenance", "opened_run", "device", "xla_choice"),
    *("cli", "run", "run_models", "run_results", "rundir", "stopping", "record"),
    *("train.loop", "train.log", "train.schedule", "coords", "metrics", "overlay", "memory"),
    *(
        "data.dataset",
        "data.source",
        "data.hdf5",
        "data.images",
        "data.native",
        "data.readers",
        "data.deepposekit",
        "data.leap",
    ),
    "data.sleap_package",
]
"""Importing these does not import TensorFlow, by whatever way."""


class Import(NamedTuple):
    """A module as it is called when imported, and whether it is where the importing module is imported."""

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
            yield from (Import(f"{child.module}.{alias.name}", is_at_module_level) for alias in child.names)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from imports_in(child, is_at_module_level and not is_function)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def own_imports(module: str) -> set[str]:
    """Return the modules of hgtrain that one imports."""
    names = [name.split(".")[1:] for name, _ in imports_in(tree_of(module)) if name.split(".")[0] == "hgtrain"]
    # What is imported from a module is no module.
    found = {".".join(parts) if ".".join(parts) in MODULES else ".".join(parts[:-1]) for parts in names}
    return {name or "__init__" for name in found}


def libraries(module: str, only_module_level: bool = False) -> set[str]:
    found = imports_in(tree_of(module))
    return {name.split(".")[0] for name, at_top in found if at_top or not only_module_level}


by_module = pytest.mark.parametrize("module", MODULES)


@by_module
def test_a_module_imports_what_the_table_allows_it(module):
    assert module in ALLOWED, f"say in ALLOWED what {module} may import"
    assert own_imports(module) <= ALLOWED[module]


def test_the_table_has_no_module_that_is_gone():
    assert set(ALLOWED) - set(MODULES) == set()


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
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("source.open_all", "source.open_dataset")
    }
    opening |= {
        name
        for name, _ in imports_in(tree_of(module))
        if name in ("hgtrain.data.source.open_all", "hgtrain.data.source.open_dataset")
    }
    assert not opening or module in OPEN_UNTRIED


@pytest.mark.parametrize("module", ["errors", "stopping", "trial", "cli", "rundir", "yaml_source", "train.schedule"])
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
