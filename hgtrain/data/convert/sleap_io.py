"""What hgtrain asks of sleap-io, which reads and writes other programs' files.

sleap-io is an optional dependency.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgtrain.errors import DatasetError, RunError
from hgtrain.skeleton import Skeleton

FOREIGN_ERRORS = Exception
"""What sleap-io raises for files it cannot read.

It is whatever comes of using what it found, there or in the libraries below it.
"""


def reason(error: Exception) -> str:
    """Return in one line why sleap-io gave up."""
    if isinstance(error, KeyError) and error.args and " " not in str(error.args[0]):
        return f"{error} is missing"
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(said).split()) or type(error).__name__


def import_sleap_io(purpose: str) -> Any:
    """Return the module sleap_io, reading videos through PyAV.

    Raises:
        RunError: It is not installed; the message says how to fix that.
    """
    try:
        import sleap_io
    except ImportError as error:
        raise RunError(f"sleap-io is needed {purpose}: pip install 'hgtrain[convert]'") from error
    # Its default seeks each frame anew through an FFmpeg process: twenty times slower.
    sleap_io.set_default_video_plugin("pyav")
    return sleap_io


def to_foreign_skeleton(skeleton: Skeleton) -> Any:
    """Return a skeleton as sleap-io's."""
    import sleap_io

    names = skeleton.keypoint_names
    edges, pairs = (
        [(names[a], names[b]) for a, b in part] for part in (skeleton.edges, skeleton.symmetries)
    )
    return sleap_io.Skeleton(list(names), edges=edges, symmetries=pairs)


def from_foreign_skeleton(skeleton: Any, source: str) -> Skeleton:
    """Return sleap-io's skeleton as hgtrain's.

    sleap-io does not order left/right partners: the one of the lower index comes first.

    Raises:
        DatasetError: It makes no sense.
    """
    try:
        return _own_skeleton(skeleton)
    except FOREIGN_ERRORS as error:
        raise DatasetError(f"{source}: its skeleton cannot be used: {reason(error)}") from error


def _own_skeleton(skeleton: Any) -> Skeleton:
    names = tuple(map(str, skeleton.node_names))
    edges = tuple((int(a), int(b)) for a, b in skeleton.edge_inds)
    pairs = {(min(a, b), max(a, b)) for a, b in skeleton.symmetry_inds}
    return Skeleton(names, edges, tuple(sorted((int(a), int(b)) for a, b in pairs)))


def to_foreign_video(
    files: Sequence[str], kind: str, shape: tuple[int, ...] | None, rate: float | None
) -> Any:
    """Return image files, a video or the images of an HDF5 file as sleap-io's video.

    Nothing is opened: the metadata is what sleap-io would write.

    Args:
        files: The image files, or one video or HDF5 file.
        kind: `images`, `video`, or `dataset` for the /images of an HDF5 file.
        shape: `(N, H, W, C)`, None where it is not known.
        rate: Frames per second, None where there is none.
    """
    import sleap_io

    paths = [Path(file).resolve().as_posix() for file in files]
    known = {
        "filename": paths[0],
        "shape": shape,
        "grayscale": shape is not None and shape[-1] == 1,
        "fps": rate,
    }
    metadata = {key: value for key, value in known.items() if value is not None} | _KINDS[kind]
    if kind == "images":
        metadata["filenames"] = paths
        if shape is not None:
            metadata |= dict(zip(("height_", "width_", "channels_"), shape[1:], strict=True))
    return sleap_io.Video(
        filename=paths if kind == "images" else paths[0],
        backend_metadata=metadata,
        open_backend=False,
    )


_KINDS: dict[str, dict[str, Any]] = {
    "images": {"type": "ImageVideo"},
    "video": {"type": "MediaVideo", "bgr": True, "dataset": "", "input_format": ""},
    "dataset": {
        "type": "HDF5Video",
        "dataset": "images",
        "input_format": "channels_last",
        "convert_range": False,
        "has_embedded_images": False,
    },
}
"""What SLEAP wants to know of a video beside its name and shape."""
