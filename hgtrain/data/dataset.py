"""What a pose dataset is: the protocol of every format, which all users of datasets rely on."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from hgtrain.skeleton import Skeleton

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2
"""Values of `PoseDataset.visibility`, as in COCO."""


class Frame(NamedTuple):
    """One labelled image.

    Attributes:
        image: `(H, W, C)` uint8, C 1 or 3.
        keypoints: `(I, K, 2)` float32, x then y in pixels, pixel centres at integers, NaN where
            missing.
    """

    image: np.ndarray
    keypoints: np.ndarray


class ImageSource(Protocol):
    """Where a dataset's images come from, without its labels.

    Pickling keeps only where the images lie; unpickling opens the file again, with the same checks.

    Attributes:
        shape: `(H, W, C)` of every image.
        frames_a_chunk: How many are unpacked, at most, to read one.
    """

    shape: tuple[int, int, int]
    frames_a_chunk: int

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 of strictly increasing rows."""
        ...

    def location(self, row: int) -> str:
        """Return file, HDF5 path and row."""
        ...


def skeleton_of(dataset: "PoseDataset") -> Skeleton:
    """Return names, edges and partners of a dataset's keypoints."""
    return Skeleton(dataset.keypoint_names, dataset.edges, dataset.symmetries)


def read_in_order(images: ImageSource, rows: np.ndarray) -> np.ndarray:
    """Return images `(n, H, W, C)` uint8 of rows in any order, repeats allowed.

    Each image is read once.
    """
    rising, order = np.unique(rows, return_inverse=True)
    found = images.read(rising)
    return found if np.array_equal(order, np.arange(len(rising))) else found[order]


@runtime_checkable
class PoseDataset(Protocol):
    """Frames with the keypoints of up to I animals each.

    Labels are in memory, images are read on demand.

    Attributes:
        path: The file, as messages name it.
        format: Name of the layout, for messages.
        image_shape: `(H, W, C)` of every frame.
        keypoint_names: The K names.
        edges: Pairs of keypoints by index.
        symmetries: Left/right partners by index.
        points: `(N, I, K, 2)` float32, x then y in pixels, pixel centres at integers, NaN where
            missing.
        visibility: `(N, I, K)` uint8, one of NOT_LABELLED, HIDDEN, VISIBLE. What is labelled (not
            NOT_LABELLED) and has a NaN point is marked as absent.
        groups: `(N,)` strings, e.g. the video of a frame; None where the format has no such thing.
        notes: What was left out when opening and why, one sentence each, for the log.
        images: Where the images come from, for processes that need no labels.
    """

    path: str
    format: str
    image_shape: tuple[int, int, int]
    keypoint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    symmetries: tuple[tuple[int, int], ...]
    points: np.ndarray
    visibility: np.ndarray
    notes: tuple[str, ...]
    images: ImageSource

    @property
    def groups(self) -> np.ndarray | None:
        """Return the group of each frame."""
        ...

    def __len__(self) -> int:
        """Return the number of frames N."""
        ...

    def __getitem__(self, index: int) -> Frame:
        """Return a frame; negative indices count from the end.

        Raises:
            IndexError: The index is beyond either end.
        """
        ...

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 in the order asked for, repeats allowed.

        No indices give `(0, H, W, C)`.
        """
        ...

    def location(self, index: int) -> str:
        """Return where a frame lies, e.g. `flies.h5:/images[12]`, for messages."""
        ...

    def close(self) -> None:
        """Close the file; reading images afterwards is an error, the labels stay."""
        ...
