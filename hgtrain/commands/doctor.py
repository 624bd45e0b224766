"""What this machine has for training, and what keeps TensorFlow from its GPUs."""

import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from hgtrain.commands.options import AS_JSON
from hgtrain.log import say
from hgtrain.signals import StopRequest

PACKAGES = (
    "hgtrain",
    "tensorflow",
    "keras",
    "numpy",
    "h5py",
    "pydantic",
    "pillow",
    "av",
    "sleap-io",
    "tf2onnx",
)
CPU_FEATURES = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_tile",
)
SECONDS = 120

LOOK = """
import json
import tensorflow as tf
build = tf.sysconfig.get_build_info()
print(json.dumps({
    "version": tf.__version__,
    "is_built_with_cuda": bool(build.get("is_cuda_build")),
    "cuda": build.get("cuda_version"),
    "cudnn": build.get("cudnn_version"),
    "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
}))
"""
NOT_LOADED = re.compile(r"Could not load dynamic library '([^']+)'(?:; dlerror: ([^;\n]*))?")


@click.command("doctor", epilog="Example: hgtrain doctor")
@AS_JSON
def command(as_json: bool) -> None:
    """Show what this machine has for training, and what is wrong.

    That is what keeps TensorFlow from its GPUs, with the line that mends it.
    """
    with StopRequest().listening():
        found = doctor()
    click.echo(json.dumps(found, indent=1, allow_nan=False) if as_json else doctor_text(found))


def examine() -> dict[str, Any]:
    """Return what there is to compute with, and what is wrong with it.

    That is versions, CPU, memory, the GPUs of the driver and of TensorFlow, and `problems`, each
    with its `fix`.
    """
    drivers = driver_gpus()
    tensorflow = look_at_tensorflow()
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": {"name": _cpu_name(), "cores": os.cpu_count(), "features": cpu_features(_cpuinfo())},
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "driver_gpus": drivers,
        "tensorflow": tensorflow,
        "problems": problems(drivers, tensorflow),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu_features(cpuinfo: str) -> list[str]:
    """Return which of the instruction sets that TensorFlow uses a text like /proc/cpuinfo lists."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return [feature for feature in CPU_FEATURES if feature in flags]


def _cpu_name() -> str:
    match = re.search(r"^model name\s*:\s*(.*)$", _cpuinfo(), re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def driver_gpus() -> list[dict[str, str]]:
    """Return name, memory and driver of the GPUs that the NVIDIA driver shows.

    There are none where there is no driver.
    """
    fields = ("name", "memory.total", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        listed = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in listed.splitlines() if line.strip()]
    return [dict(zip(("name", "memory", "driver"), row, strict=False)) for row in rows]


def look_at_tensorflow() -> dict[str, Any]:
    """Return what TensorFlow sees in a process of its own, or its `error`.

    With it come the libraries that it could not load.
    """
    # What its loader says of each library is shown at this level only.
    verbose = {
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_CPP_VMODULE": "dso_loader=1,gpu_device=1,cudart_stub=1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=os.environ | verbose,
        )
    except subprocess.TimeoutExpired:
        return {
            "gpus": [],
            "error": f"importing it took longer than {SECONDS} seconds",
            "not_loaded": [],
        }
    if done.returncode:
        return {
            "gpus": [],
            "error": (done.stderr.strip().splitlines() or ["no output"])[-1],
            "not_loaded": [],
        }
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    return seen | {"error": None, "not_loaded": not_loaded(done.stderr)}


def not_loaded(log: str) -> list[dict[str, str]]:
    """Return name and reason of each library that TensorFlow's log says it could not load."""
    found = {match[1]: match[2] or "" for match in NOT_LOADED.finditer(log)}
    return [{"library": library, "reason": reason.strip()} for library, reason in found.items()]


def problems(drivers: list[dict[str, str]], tensorflow: dict[str, Any]) -> list[dict[str, str]]:
    """Return what is wrong, each with a `text` and the `fix`, a line to run."""
    if tensorflow["error"]:
        text = f"TensorFlow cannot be imported: {tensorflow['error']}"
        return [{"text": text, "fix": "pip install --force-reinstall hgtrain"}]
    if tensorflow["gpus"] or not drivers:
        return []
    gpu = drivers[0]["name"]
    install = f'pip install "tensorflow[and-cuda]=={tensorflow["version"]}"'
    if not tensorflow["is_built_with_cuda"]:
        text = f"the driver shows {gpu}, but this TensorFlow is built without CUDA"
        return [{"text": text, "fix": f"pip uninstall -y tensorflow-cpu; {install}"}]
    missing = tensorflow["not_loaded"]
    libraries = ", ".join(f"{one['library']} ({one['reason'] or 'not found'})" for one in missing)
    what = f"could not load {libraries}" if missing else "does not say why"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden in ("", "-1"):
        text = f"the driver shows {gpu}, but CUDA_VISIBLE_DEVICES is {hidden!r}, which hides it"
        return [{"text": text, "fix": "unset CUDA_VISIBLE_DEVICES"}]
    text = (
        f"the driver shows {gpu}, but TensorFlow sees none and {what}; "
        f"it needs CUDA {tensorflow['cuda']}"
    )
    return [{"text": text, "fix": install}]


def doctor_text(found: dict[str, Any]) -> str:
    """Return what `examine` found as lines to read."""
    tensorflow, cpu = found["tensorflow"], found["cpu"]
    lines = [f"{name:<12} {version or '-'}" for name, version in found["versions"].items()]
    lines += [
        f"{'CPU':<12} {cpu['name']}, {cpu['cores']} cores, {' '.join(cpu['features']) or 'no AVX'}",
        f"{'memory':<12} {found['memory_bytes'] / 2**30:.1f} GiB",
        *(
            f"{'GPU':<12} {gpu['name']}, {gpu['memory']}, driver {gpu['driver']}"
            for gpu in found["driver_gpus"]
        ),
        f"{'TensorFlow':<12} sees {len(tensorflow['gpus'])} GPUs"
        + (
            f", built for CUDA {tensorflow['cuda']} and cuDNN {tensorflow['cudnn']}"
            if tensorflow.get("is_built_with_cuda")
            else ""
        ),
    ]
    for problem in found["problems"]:
        lines += [f"problem: {problem['text']}", f"    fix: {problem['fix']}"]
    return "\n".join(lines if found["problems"] else [*lines, "nothing is wrong"])


def doctor() -> dict[str, Any]:
    """Return what this machine has for training, and what keeps TensorFlow from its GPUs."""
    say("looking at TensorFlow, which takes some seconds")
    return examine()
