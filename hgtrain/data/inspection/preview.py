"""A preview picture of a dataset: some of its frames with their keypoints."""

from pathlib import Path

import numpy as np
from PIL import Image

from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.data.media.drawing import BONE_COLOUR, Drawing, animal_colour
from hgtrain.errors import DatasetError

FRAMES, COLUMNS = 12, 4
TILE_PX = 320
RADIUS_PX = 3
COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#ffe119",
    "#4363d8",
    "#f58231",
    "#46f0f0",
    "#f032e6",
    "#bcf60c",
    "#fabebe",
    "#9a6324",
)


def write_preview(dataset: PoseDataset, path: Path) -> None:
    """Write twelve frames from all over a dataset as one picture.

    A keypoint has one colour in all of them; where a frame may hold several animals, the edges of
    each have a colour of their own.

    Raises:
        DatasetError: The picture cannot be written.
    """
    frames = np.unique(np.linspace(0, len(dataset) - 1, FRAMES).astype(np.int64))
    rows = -(-len(frames) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE_PX, rows * TILE_PX))
    for place, frame in enumerate(frames.tolist()):
        row, column = divmod(place, COLUMNS)
        sheet.paste(_tile(dataset, frame), (column * TILE_PX, row * TILE_PX))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be written: {error}; expected a name such as preview.png"
        ) from error


def _tile(dataset: PoseDataset, frame: int) -> Image.Image:
    image = dataset.read_images([frame])[0]
    drawing = Drawing(image, TILE_PX / max(image.shape[:2]), resample=Image.Resampling.BICUBIC)
    labelled = (dataset.visibility[frame] != NOT_LABELLED)[..., None]
    animals = np.where(labelled, dataset.points[frame], np.nan)
    for place, animal in enumerate(animals):
        drawing.bones(
            animal, dataset.edges, animal_colour(place) if len(animals) > 1 else BONE_COLOUR
        )
        drawing.dots(animal, COLOURS, RADIUS_PX)
    return drawing.picture
