"""A preview picture of a dataset: some of its frames with their keypoints."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
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

    A keypoint has one colour in all of them.

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
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    scale = TILE_PX / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    )
    pen = ImageDraw.Draw(picture)
    for points, visibility in zip(dataset.points[frame], dataset.visibility[frame], strict=True):
        places = [
            None
            if mark == NOT_LABELLED or np.isnan(point).any()
            else ((point + 0.5) * scale - 0.5).tolist()
            for point, mark in zip(points, visibility, strict=True)
        ]
        for a, b in dataset.edges:
            if (start := places[a]) and (end := places[b]):
                pen.line((*start, *end), fill="white")
        for keypoint, at in enumerate(places):
            if at:
                x, y = at
                box = (x - RADIUS_PX, y - RADIUS_PX, x + RADIUS_PX, y + RADIUS_PX)
                pen.ellipse(box, fill=COLOURS[keypoint % len(COLOURS)])
    return picture
