import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hgtrain
from hgtrain import cli
from hgtrain.commands import fit as fit_module
from hgtrain.errors import ConfigError, DatasetError, HgtrainError, RunError
from hgtrain.signals import StoppedError

HEAVY = ["tensorflow", "keras", "numpy", "h5py", "pydantic", "yaml"]

EVALUATION = {
    "frames": 20,
    "keypoints": 640,
    "error_px": {"mean": 3.25, "median": 1.5, "p75": 2.0, "p90": 4.0, "p95": 9.996, "p99": 30.0},
    "rmse_px": 5.0,
    "pck": {"1": 0.25, "10": 0.9},
    "oks": 0.81,
}

RUN = "from hgtrain.__main__ import main; main()"

TABLE = """\
run               runs/a
frames            20
keypoints         640
error, mean       3.25 px
error, median     1.50 px
error, 95% below  10.00 px
OKS               0.810
within 1 px       25.0%
within 10 px      90.0%
"""


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs a command line: exit status, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hgtrain", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: {train: a.h5}\n")
    return path


@pytest.fixture
def fit(monkeypatch):
    """Return a function that replaces what fit does: `raises` or `returns`.

    `.calls` is what it was given.
    """

    def replace(raises=None, returns=(Path("runs/a"), EVALUATION)):
        replace.calls = []

        def fake(*arguments):
            replace.calls.append(arguments)
            if raises is not None:
                raise raises
            return returns

        monkeypatch.setattr(fit_module, "fit", fake)
        return replace.calls

    return replace


# What answers at once

LIGHT = [
    ["--help"],
    ["-h"],
    ["--version"],
    *([command, "--help"] for command in sorted(cli.commands.commands)),
    [],
    ["fit"],
    ["no-such-command"],
]

IMPORTED_BY = """
import json, sys
from hgtrain.cli import main
all_arguments, heavy = map(json.loads, sys.argv[1:])
for arguments in all_arguments:
    sys.argv = ["hgtrain", *arguments]
    try:
        main()
    except SystemExit:
        pass
    print("imported", json.dumps([arguments, sorted(set(heavy) & set(sys.modules))]))
"""


def test_help_version_and_wrong_commands_import_nothing_heavy():
    program = [sys.executable, "-c", IMPORTED_BY, json.dumps(LIGHT), json.dumps(HEAVY)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    lines = [
        line.removeprefix("imported ")
        for line in done.stdout.splitlines()
        if line.startswith("imported ")
    ]
    assert [json.loads(line) for line in lines] == [[arguments, []] for arguments in LIGHT]


IMPORTED_COMMANDS = """
import json, sys
from click.testing import CliRunner
from hgtrain.cli import commands
before = set()
for name in ["", *commands.list_commands(None)]:
    assert CliRunner().invoke(commands, [name, "--help"][not name:]).exit_code == 0
    now = {module for module in sys.modules if module.startswith("hgtrain.commands.")}
    print(json.dumps([name, sorted(now - before)]))
    before = now | {"hgtrain.commands.options"}
"""


def test_help_imports_the_command_that_it_is_about():
    program = [sys.executable, "-c", IMPORTED_COMMANDS]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    (_, listed), *each = map(json.loads, done.stdout.splitlines())
    assert listed == []
    assert len(each) == 12
    for name, modules in each:
        own = f"hgtrain.commands.{name.replace('-', '_')}"
        assert set(modules) - {"hgtrain.commands.options"} == {own}


def test_the_list_of_commands_says_of_each_what_its_own_help_does():
    for name, listed in cli.LISTED.items():
        own = cli.commands.get_command(None, name)
        assert own.name == name
        assert listed.get_short_help_str(200) == own.get_short_help_str(200)
        assert listed.hidden == own.hidden


def test_each_command_is_in_one_group():
    grouped = [name for names in cli.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(cli.COMMANDS)


def test_the_help_has_the_groups_in_the_order_of_the_work(command):
    _, out, _ = command("--help")
    titles = ["Prepare data:", "Train:", "Use what was trained:", "Other:"]
    places = [out.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    firsts = [out[place:].splitlines()[2].split()[0] for place in places]
    assert firsts == ["convert", "summarize", "evaluate", "import-sleap"]


def test_the_help_begins_with_an_example(command):
    _, out, _ = command("--help")
    assert out.index("  hgtrain fit flies.yaml\n") < out.index("Options:")


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_no_summary_is_cut(command, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = command("--help")
    assert "..." not in out.partition("Prepare data")[2]
    in_one_line = " ".join(out.split())
    assert all(f"{name} {line}" in in_one_line for name, (_, line) in cli.COMMANDS.items())


def test_a_summary_is_a_line_of_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command("--help")[1].splitlines()
    assert all(any(line.endswith(text) for line in lines) for _, text in cli.COMMANDS.values())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell):
    environment = os.environ | {"_HGTRAIN_COMPLETE": f"{shell}_source"}
    program = [sys.executable, "-c", "import sys; sys.argv = ['hgtrain']\n" + RUN]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=True)
    assert "hgtrain" in done.stdout
    assert "_HGTRAIN_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("line", "found"), [("hgtrain summ", ["summarize"]), ("hgtrain fit --res", ["--resume"])]
)
def test_commands_and_options_are_completed(line, found):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = os.environ | {"_HGTRAIN_COMPLETE": "bash_complete"} | words
    program = [sys.executable, "-c", "import sys; sys.argv = ['hgtrain']\n" + RUN]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=True)
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == found


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"]])
def test_help_goes_to_stdout_and_is_a_success(command, arguments):
    status, out, err = command(*arguments)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: ")


def test_the_version_is_the_packages(command):
    assert command("--version") == (0, f"hgtrain, version {hgtrain.__version__}\n", "")


def test_the_package_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "hgtrain", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"hgtrain, version {hgtrain.__version__}\n"


def test_importing_the_program_runs_nothing():
    import hgtrain.__main__

    assert callable(hgtrain.__main__.main)


# Exit statuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: "),
        (["fit"], "Missing argument 'CONFIG_OR_RUN'"),
        (["fit", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["fit", "a.yaml", "--resum"], "No such option"),
        (["fit", "a.yaml", "--set"], "requires an argument"),
        (["trian"], "No such command 'trian'"),
        (["init"], "give DATA and -o CONFIG, or --schema"),
        (
            ["export", "a", "-o", "b", "--size", "64"],
            "'64' is not a height and a width such as 192x256",
        ),
    ],
)
def test_a_wrong_command_line_is_status_2_on_stderr(command, arguments, message):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("kind", [HgtrainError, ConfigError, DatasetError, RunError])
def test_a_mistake_is_one_message_and_status_1(command, config, fit, kind):
    fit(raises=kind("flies.h5:/images is float64, expected uint8"))
    assert command("fit", config) == (1, "", "Error: flies.h5:/images is float64, expected uint8\n")


def test_all_mistakes_of_a_config_come_at_once(command, config):
    config.write_text("data: {train: a.h5}\ntraining:\n  epochs: 0\n  optimiser: adam\n")
    status, out, err = command("fit", config)
    assert (status, out) == (1, "")
    assert err == (
        f"Error: {config}:3: training.epochs must be at least 1, got 0\n"
        f"{config}:4: unknown key training.optimiser (did you mean training.optimizer?)\n"
    )


@pytest.mark.parametrize(
    "defect", [ZeroDivisionError("a defect"), OSError(28, "No space left on device")]
)
def test_any_other_failure_shows_its_traceback(command, config, fit, defect):
    fit(raises=defect)
    with pytest.raises(type(defect)) as caught:
        command("fit", config)
    assert caught.value is defect


@pytest.mark.parametrize(
    ("stopped", "status"),
    [(StoppedError(2), 130), (StoppedError(15), 143), (KeyboardInterrupt(), 130)],
)
def test_a_signal_has_its_status_and_no_message(command, config, fit, stopped, status):
    fit(raises=stopped)
    code, out, err = command("fit", config)
    assert (code, out, err.strip()) == (status, "", "")


SIGNALLED = """
import os, sys

module, signum = sys.argv[1], int(sys.argv[2])

class Signal:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signum)

sys.meta_path.insert(0, Signal)
from hgtrain.__main__ import main
sys.argv = ["hgtrain", "fit", "a.yaml"]
main()
"""


@pytest.mark.parametrize(("signum", "status"), [(2, 130), (15, 143)])
@pytest.mark.parametrize(
    "module",
    [
        "hgtrain.cli",
        "click",
        "hgtrain.signals",
        "hgtrain.commands.fit",
        "hgtrain.rundir.layout",
        "hgtrain.config.schema",
        "pydantic",
        "yaml",
    ],
)
def test_a_signal_while_the_program_is_imported_has_its_status_and_no_message(
    module, signum, status
):
    program = [sys.executable, "-c", SIGNALLED, module, str(signum)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


# Results


def test_the_result_of_fit_is_a_table_on_stdout(command, config, fit):
    fit()
    assert command("fit", config)[:2] == (0, TABLE)


def test_fit_ends_with_what_to_look_at_and_what_to_do_next(command, config, fit):
    fit(returns=(Path("runs/a b"), EVALUATION))
    _, _, err = command("fit", config)
    assert [line.split(maxsplit=1) for line in err.splitlines()[:1]] == [
        ["report", "runs/a b/report.html"]
    ]
    assert "best network      runs/a b/best.keras\n" in err
    assert err.endswith(
        "next              hgtrain predict 'runs/a b' film.mp4 -o film.csv --overlay look.mp4\n"
    )


def test_what_sees_crops_is_used_with_what_finds_animals(command, config, fit):
    config.write_text("data: {train: a.h5}\nmodel: {head: {type: centered_instance}}\n")
    fit()
    _, _, err = command("fit", config)
    assert err.endswith("--overlay look.mp4 --centroids RUN\n")


def test_what_has_no_value_is_a_dash(command, config, fit):
    nothing = {"error_px": dict.fromkeys(EVALUATION["error_px"]), "oks": None, "pck": {"1": None}}
    fit(returns=(Path("runs/a"), EVALUATION | nothing))
    _, out, _ = command("fit", config)
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["-", "-"]
    assert "error, mean       -\n" in out


def test_fit_hands_on_what_it_was_given(command, config, fit, tmp_path):
    calls = fit()
    overrides = ("--set", "training.epochs=7", "--set", "training.seed=3")
    command("fit", config, *overrides, "--run-dir", tmp_path / "r", "--resume")
    ((loaded, run_dir, resume, stop),) = calls
    assert (loaded.training.epochs, loaded.training.seed) == (7, 3)
    assert (run_dir, resume) == (tmp_path / "r", True)
    assert not stop


def test_fit_goes_on_with_a_run_that_is_named_in_place_of_a_config(command, fit, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("data: {train: a.h5}\ntraining: {epochs: 7}\n")
    calls = fit()
    assert command("fit", run, "--resume")[0] == 0
    command("fit", run, "--resume", "--run-dir", tmp_path / "." / "run")
    for loaded, run_dir, resume, _ in calls:
        assert (loaded.training.epochs, run_dir, resume) == (7, run, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run is a run: `hgtrain fit {run} --resume` goes on with it, `hgtrain fit "),
        (["--run-dir", "other"], "run is a run: "),
        (["--resume", "--run-dir", "other"], "names another directory, other: leave --run-dir out"),
    ],
)
def test_a_run_in_place_of_a_config_is_to_be_resumed_where_it_is(
    command, fit, tmp_path, arguments, message
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("data: {train: a.h5}\n")
    calls = fit()
    status, out, err = command("fit", run, *arguments)
    assert (status, out, calls) == (1, "", [])
    assert message.format(run=run) in err


def test_a_folder_without_a_run_is_no_config(command, tmp_path):
    status, _, err = command("fit", tmp_path, "--resume")
    assert (status, err) == (
        1,
        f"Error: {tmp_path} is a folder without config.yaml: expected a config or a run "
        "directory\n",
    )


def test_fit_without_options_starts_a_new_run(command, config, fit):
    calls = fit()
    command("fit", config)
    assert calls[0][1:3] == (None, False)


def test_the_schema_is_a_schema_and_takes_a_config(command):
    jsonschema = pytest.importorskip("jsonschema")
    status, out, err = command("init", "--schema")
    assert (status, err) == (0, "")
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"data": {"train": "a.h5"}, "training": {"epochs": 3}}, schema)
    with pytest.raises(jsonschema.ValidationError, match="optimiser"):
        jsonschema.validate({"data": {"train": "a.h5"}, "training": {"optimiser": "adam"}}, schema)


def test_a_reader_that_leaves_early_gets_no_traceback():
    program = subprocess.Popen(
        [sys.executable, "-m", "hgtrain", "init", "--schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with program:
        program.stdout.close()
        assert program.stderr.read() == b""


def test_a_closed_stderr_is_no_failure():
    shell = 'exec "$0" -m hgtrain doctor --json 2>&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "versions" in json.loads(done.stdout)
