import pytest

from hgtrain import log
from hgtrain.data.sandbox import process as process_module
from hgtrain.data.sandbox.process import Sandbox
from hgtrain.errors import DatasetError


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Replace what the other process runs by a program."""

    def replace(program):
        path = tmp_path / "python"
        path.write_text(f"#!{process_module.sys.executable}\n{program}\n")
        path.chmod(0o700)
        monkeypatch.setattr(process_module.sys, "executable", str(path))

    return replace


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("import os; os.abort()", r"^a.h5, b.h5: the HDF5 library crashes \(SIGABRT\) reading it"),
        (
            "import signal, os; print('\"b.h5\"', flush=True); os.kill(os.getpid(), "
            "signal.SIGPROF)",
            "^b.h5: the HDF5 library ran out of CPU time",
        ),
        (
            'import os; print(\'"a.h5"\'); print(\'{"refused": "x"}\', flush=True); os.abort()',
            r"^a.h5: the HDF5 library crashes \(SIGABRT\)",
        ),
    ],
)
def test_a_library_that_takes_the_process_down_is_said_so(interpreter, program, text):
    interpreter(program)
    with pytest.raises(DatasetError, match=text):
        Sandbox("hgtrain.data.sandbox.open", ["a.h5", "b.h5"]).answer()


def test_a_defect_shows_its_traceback():
    with pytest.raises(RuntimeError, match="could not convert string to float: 'soon'"):
        Sandbox("hgtrain.data.sandbox.open", ["a.h5"], step_s="soon").answer()


def test_a_process_that_takes_long_is_spoken_of(interpreter, monkeypatch, capsys):
    interpreter("import time; time.sleep(0.5); print('{}')")
    monkeypatch.setattr(process_module, "SILENT_S", 0.1)
    assert Sandbox("hgtrain.data.sandbox.open", ["a.h5"]).answer() == {}
    assert capsys.readouterr().err == "a.h5: checked in a separate process\n"


def test_a_process_that_says_how_far_it_is_is_shown(interpreter, monkeypatch, capsys):
    interpreter("print('[3, 10]'); print('[6, 10]'); print('{}')")
    now, later, update = [0.0], iter([5.0, 20.0]), log.Reporter.update

    def updated(reporter, done):
        now[0] = next(later)
        update(reporter, done)

    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(log.Reporter, "update", updated)
    assert Sandbox("hgtrain.data.sandbox.open", ["a.h5"]).answer() == {}
    assert capsys.readouterr().err.splitlines() == [
        "looking through a.h5: 3/10 frames, 0.6 frames/s, 0:12 left",
        "looking through a.h5: 6/10 frames, 0.3 frames/s, 0:13 left",
    ]


def test_a_process_that_waits_without_working_can_be_ended(interpreter):
    interpreter("import time; time.sleep(1000)")
    process = Sandbox("hgtrain.data.sandbox.open", ["a.h5"])
    process.close()
    assert process._process.returncode == -9


def test_memory_is_limited(interpreter, tmp_path):
    module = tmp_path / "greedy.py"
    module.write_text(
        "from hgtrain.data.sandbox.process import answer_with\n"
        "from hgtrain.errors import DatasetError\n"
        "def read(paths):\n"
        "    try:\n"
        "        return {'bytes': len(bytearray(2**40))}\n"
        "    except MemoryError:\n"
        "        raise DatasetError('too large')\n"
        "answer_with(read)\n"
    )
    interpreter(
        f"import runpy, sys; sys.argv = ['greedy', '5', 'a.h5']; runpy.run_path({str(module)!r})"
    )
    with pytest.raises(DatasetError, match=r"^too large$"):
        Sandbox("greedy", ["a.h5"]).answer()


def test_modules_come_from_where_they_do_here(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text(
        "from hgtrain.data.sandbox.process import answer_with; answer_with(lambda paths: {'a': 1})"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "here")
    assert Sandbox("mine", []).answer() == {"a": 1}
