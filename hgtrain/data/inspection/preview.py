"""A preview picture of a dataset: some of its frames with their keypoints."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.data.media.drawing import BONE_COLOUR, Colour, Drawing, animal_colour
from hgtrain.errors import DatasetError

FRAMES, COLUMNS = 12, 4
TILE_PX = 320
"""The longer side of a frame in the picture."""
RADIUS_PX = 3
FONT_PX, LINE_PX, MARGIN_PX = 14, 20, 6
SHADES = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.7))
"""Saturation and value of neighbouring keypoints, whose hues are close where they are many."""


def write_preview(dataset: PoseDataset, path: Path) -> None:
    """Write twelve frames from all over a dataset as one picture.

    A keypoint has one colour in all of them, which the legend below names; where a frame may hold
    several animals, the edges of each have a colour of their own. On each frame is its number in
    the dataset, from 0.

    Raises:
        DatasetError: The picture cannot be written.
    """
    colours = keypoint_colours(len(dataset.keypoint_names))
    frames = np.unique(np.linspace(0, len(dataset) - 1, FRAMES).astype(np.int64))
    tiles = [_tile(dataset, frame, colours) for frame in frames.tolist()]
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    legend = _legend(dataset.keypoint_names, colours, columns * width)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height + legend.height))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * width, row * height))
    sheet.paste(legend, (0, rows * height))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be written: {error}; expected a name such as preview.png"
        ) from error


def keypoint_colours(count: int) -> list[Colour]:
    """Return as many different colours, all of them bright."""
    colours: list[Colour] = []
    for keypoint in range(count):
        saturation, value = SHADES[keypoint % len(SHADES)]
        red, green, blue = colorsys.hsv_to_rgb(keypoint / count, saturation, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def _tile(dataset: PoseDataset, frame: int, colours: list[Colour]) -> Image.Image:
    image = dataset.read_images([frame])[0]
    drawing = Drawing(image, TILE_PX / max(image.shape[:2]), resample=Image.Resampling.BICUBIC)
    labelled = (dataset.visibility[frame] != NOT_LABELLED)[..., None]
    animals = np.where(labelled, dataset.points[frame], np.nan)
    for place, animal in enumerate(animals):
        drawing.bones(
            animal, dataset.edges, animal_colour(place) if len(animals) > 1 else BONE_COLOUR
        )
        drawing.dots(animal, colours, RADIUS_PX)
    pen = ImageDraw.Draw(drawing.picture)
    at = (MARGIN_PX, MARGIN_PX)
    pen.text(at, str(frame), "white", _font(), stroke_width=2, stroke_fill="black")
    return drawing.picture


def _legend(names: tuple[str, ...], colours: list[Colour], width: int) -> Image.Image:
    """Return the names beside dots of their colours, in as many columns as the width has room."""
    font = _font()
    column_px = round(max(font.getlength(name) for name in names)) + LINE_PX + 3 * MARGIN_PX
    columns = max(1, width // column_px)
    rows = -(-len(names) // columns)
    legend = Image.new("RGB", (width, rows * LINE_PX + 2 * MARGIN_PX))
    pen = ImageDraw.Draw(legend)
    for place, (name, colour) in enumerate(zip(names, colours, strict=True)):
        column, row = divmod(place, rows)
        x, y = column * column_px + MARGIN_PX, row * LINE_PX + MARGIN_PX + LINE_PX // 2
        middle = x + LINE_PX // 2
        box = (middle - 2 * RADIUS_PX, y - 2 * RADIUS_PX, middle + 2 * RADIUS_PX, y + 2 * RADIUS_PX)
        pen.ellipse(box, fill=colour)
        pen.text((x + LINE_PX + MARGIN_PX, y), name, "white", font, anchor="lm")
    return legend


def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(FONT_PX)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
