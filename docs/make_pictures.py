"""Draw the picture of README.md and the first page: `python docs/make_pictures.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from hgtrain.data.builtin_datasets import draw_missing
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.data.media.drawing import BONE_COLOUR, Drawing, animal_colour
from hgtrain.data.open import open_dataset

OUT = Path(__file__).resolve().parent / "_static" / "flies.png"
FRAMES = (("builtin:flies", 0), ("builtin:fly-groups", 20), ("builtin:fly-groups", 12))
TILE_PX, GAP_PX, RADIUS_PX = 300, 8, 2
COLOURS = 96
"""Of the palette: grey images with thin lines need no more."""


def draw() -> None:
    """Write the picture."""
    draw_missing([name for name, _ in FRAMES])
    width = len(FRAMES) * (TILE_PX + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, TILE_PX), "white")
    for place, (name, frame) in enumerate(FRAMES):
        sheet.paste(_tile(open_dataset(name), frame), (place * (TILE_PX + GAP_PX), 0))
    sheet.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        OUT, optimize=True
    )


def _tile(dataset: PoseDataset, frame: int) -> Image.Image:
    image = dataset.read_images([frame])[0]
    drawing = Drawing(image, TILE_PX / max(image.shape[:2]), resample=Image.Resampling.BICUBIC)
    labelled = (dataset.visibility[frame] != NOT_LABELLED)[..., None]
    animals = np.where(labelled, dataset.points[frame], np.nan)
    for place, animal in enumerate(animals):
        colour = animal_colour(place) if len(animals) > 1 else BONE_COLOUR
        drawing.bones(animal, dataset.edges, colour)
        drawing.dots(animal, [colour], RADIUS_PX)
    return drawing.picture


if __name__ == "__main__":
    draw()
