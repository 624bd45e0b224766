"""Where frames are kept while training, and what to say where that makes training wait."""

import os
from pathlib import Path

from hgtrain.data.dataset import PoseDataset

GIB = 2**30
DEVICE_BYTES = 2 * GIB
"""Up to this, frames go to the device, whose memory the network needs too."""

RAM_DIVISOR = 4
"""A machine's memory is divided by this before frames are kept in it, unless it is asked for."""

LONG_WAIT = 0.05
"""Part of an epoch that may be spent waiting for frames without a word."""

SEVERAL_A_CHUNK = 4


def resolve_cache(wanted: str, size_bytes: int) -> str:
    """Return where frames of this size in total are kept: device, ram or none.

    That is the place that is wanted, or, for auto, the first one they fit in.
    """
    if wanted != "auto":
        return wanted
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return (
        "device"
        if size_bytes < DEVICE_BYTES
        else "ram"
        if size_bytes < pages * page // RAM_DIVISOR
        else "none"
    )


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the bytes that can be had without swapping, within the limits of a control group."""
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = int((group / "memory.max").read_text())
        return min(available, limit - int((group / "memory.current").read_text()))
    # There is no such file, or the limit is `max`.
    except (OSError, ValueError):
        return available


def waiting_note(fraction: float, cache: str, size_bytes: int, available_bytes: int) -> str | None:
    """Return what to say when part of an epoch was spent waiting for frames.

    None stands for so little that there is nothing to say.

    Args:
        fraction: The part of the epoch.
        cache: Where the frames are kept now.
        size_bytes: Of the frames in total.
        available_bytes: Memory that frames may take.
    """
    if fraction <= LONG_WAIT or cache == "device":
        return None
    size, there_is = f"{size_bytes / GIB:.2f} GiB", f"{available_bytes / GIB:.2f} GiB of memory"
    if cache == "none" and size_bytes < available_bytes * 3 // 4:
        remedy = f"go on with data.cache: ram, which takes {size} of the {there_is} that are free"
    elif cache == "none":
        remedy = (
            "data.cache: none needs a faster disk or more cores, and frames stored one a chunk "
            "(`hgtrain convert`); "
            f"data.cache: ram takes {size}, and {there_is} are free"
        )
    elif size_bytes < DEVICE_BYTES:
        remedy = f"go on with data.cache: device, which takes {size} of the device's memory"
    else:
        remedy = (
            f"data.cache: ram needs more cores; data.cache: device takes {size} of the device's "
            "memory"
        )
    return (
        f"{fraction:.0%} of the epoch was spent waiting for frames (data_wait_fraction "
        f"{fraction:.2f}): {remedy}"
    )


def chunk_note(dataset: PoseDataset, cache: str) -> str | None:
    """Return what to say when frames are read one by one from chunks of many.

    None stands for frames that are not.
    """
    frames = dataset.images.frames_a_chunk
    if cache != "none" or frames < SEVERAL_A_CHUNK:
        return None
    return (
        f"{dataset.path} stores up to {frames} frames in a compressed chunk, and data.cache: none "
        "unpacks them all to "
        f"read one: store one a chunk (`hgtrain convert {dataset.path} new.h5`), or set "
        "data.cache: ram"
    )
