"""Several datasets as one."""

from collections.abc import Sequence

import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, Frame, ImageSource, PoseDataset
from hgtrain.data.formats.stored_images import ConcatenatedImages


class Concatenated:
    """Several datasets with the same keypoints and image shape as one `PoseDataset`.

    `paths` are their files.
    """

    def __init__(self, parts: Sequence[PoseDataset]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        first = parts[0]
        self.paths = tuple(part.path for part in parts)
        self.path = ", ".join(self.paths)
        self.format = ", ".join(dict.fromkeys(part.format for part in parts))
        self.image_shape, self.keypoint_names = first.image_shape, first.keypoint_names
        self.edges, self.symmetries = first.edges, first.symmetries
        instances = max(part.points.shape[1] for part in parts)
        self.points = np.concatenate([_padded(part.points, instances, np.nan) for part in parts])
        self.visibility = np.concatenate(
            [_padded(part.visibility, instances, NOT_LABELLED) for part in parts]
        )
        for part, start in zip(parts, self._starts[:-1], strict=True):
            # One copy of the labels in all.
            mine = slice(start, start + len(part)), slice(part.points.shape[1])
            part.points, part.visibility = self.points[mine], self.visibility[mine]
        self.images: ImageSource = ConcatenatedImages(
            [part.images for part in parts], [len(part) for part in parts]
        )
        self.notes = tuple(note for part in parts for note in part.notes)
        self.flags_path: str | None = next(filter(None, map(flags_path, parts)), None)

    @property
    def groups(self) -> np.ndarray | None:
        """Return the group of each frame, prefixed with its file.

        The array is made anew each time, as it takes more memory than the points.
        """
        return np.concatenate([_prefixed_groups(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Frame:
        part, row = self._find(index)
        return Frame(part[row].image, self.points[index])

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 in the order asked for.

        Negative indices count from the end.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        for index in wanted[(wanted < -len(self)) | (wanted >= len(self))]:
            self._find(int(index))
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        images = np.empty((len(wanted), *self.image_shape), np.uint8)
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            mine = (wanted >= start) & (wanted < start + len(part))
            images[mine] = part.read_images(wanted[mine] - start)
        return images

    def location(self, index: int) -> str:
        """Return where a frame lies in its own file."""
        part, row = self._find(index)
        return part.location(row)

    def close(self) -> None:
        """Close all files."""
        for part in self._parts:
            part.close()

    def _find(self, index: int) -> tuple[PoseDataset, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {self.path}, which have {len(self)} frames")
        row = index % len(self)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[part], row - int(self._starts[part])


def _padded(values: np.ndarray, instances: int, fill: float) -> np.ndarray:
    widths = [(0, 0), (0, instances - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
    return np.pad(values, widths, constant_values=fill)


def _prefixed_groups(part: PoseDataset) -> np.ndarray:
    groups = (
        [part.path] * len(part)
        if part.groups is None
        else [f"{part.path}/{group}" for group in part.groups]
    )
    return np.array(groups, dtype=str)


def flags_path(dataset: PoseDataset) -> str | None:
    """Return the file and HDF5 path of what marks keypoints as not annotated.

    None stands for a format without such marks.
    """
    return getattr(dataset, "flags_path", None)
