"""What flies stand on and how they are photographed: arena, light, shadow, litter, camera."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE
from hgtrain.data.flies.anatomy import SKELETON, Fly
from hgtrain.data.flies.painting import OVERSAMPLING, Canvas, edge, paint_fly, paint_rod


class FliesSettings(NamedTuple):
    """What is drawn.

    Attributes:
        version: Of the drawing code; it goes up whenever the pictures or labels change.
        frames: How many.
        seed: Of all random choices.
        size: Height and width in pixels.
    """

    version: int
    frames: int
    seed: int
    size: int


class Arena(NamedTuple):
    """One camera and floor, as in one video. Greys are in 0..1.

    Attributes:
        floor: Mean grey.
        texture: Contrast of the floor's pattern.
        roughness: How much of that is fine (0 to 2, 2 is smooth).
        specks: On 100 x 100 px.
        light_deg: Where the light comes from.
        shadow: Darkness of the shadow.
        noise: Of the sensor.
        blur: Share of a pixel's light that falls on its neighbours in a row or column.
    """

    floor: float
    texture: float
    roughness: float
    specks: float
    light_deg: float
    shadow: float
    noise: float
    blur: float


ARENAS = (
    Arena(0.80, 0.025, 1.6, 2.0, -60, 0.45, 0.012, 0.12),
    Arena(0.70, 0.050, 1.0, 6.0, 30, 0.50, 0.018, 0.14),
    Arena(0.86, 0.030, 2.0, 1.0, 150, 0.30, 0.010, 0.08),
    Arena(0.62, 0.045, 1.3, 4.0, -140, 0.40, 0.022, 0.17),
    Arena(0.74, 0.060, 0.8, 3.0, 90, 0.55, 0.015, 0.13),
)
"""Frame i is of arena i modulo their number."""


def photograph(
    settings: FliesSettings, arena_number: int, rng: np.random.Generator, flies: Sequence[Fly]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture of flies in an arena, with its labels.

    Args:
        settings: What is drawn.
        arena_number: Which of `ARENAS`.
        rng: Of what is random in the light, the floor, the litter and the camera.
        flies: From the lowest to the topmost, on which litter may lie.

    Returns:
        Image `(size, size, 1)` uint8, points `(I, K, 2)` float32 and visibility `(I, K)` uint8, as
        `draw.draw_flies` describes them.
    """
    size, arena = settings.size, ARENAS[arena_number]
    landmarks = np.array([fly.landmarks for fly in flies], complex).reshape(-1)
    light_deg = arena.light_deg + rng.uniform(-15, 15)
    canvas = Canvas(size, landmarks, np.exp(1j * np.deg2rad(light_deg)).item())
    for number, fly in enumerate(flies):
        paint_fly(canvas, fly, number * len(SKELETON.keypoint_names))
    shadow = _shadow(canvas, flies, arena)
    for fly in flies[-1:]:
        _paint_litter(canvas, rng, fly)
    floor = _crop_floor(settings, arena_number, rng) * (1 - shadow)
    picture = floor * (1 - _downsample(canvas.cover)) + _downsample(canvas.grey)
    points, visibility = _label(landmarks, canvas.passing, size)
    return _expose(picture, arena, rng), points, visibility


def _label(landmarks: np.ndarray, passing: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.stack([landmarks.real, landmarks.imag], axis=-1).astype(np.float32)
    outside = ((points < 0) | (points > size - 1)).any(axis=-1)
    points[outside] = np.nan
    visibility = np.where(outside, NOT_LABELLED, np.where(passing < 0.5, HIDDEN, VISIBLE))
    keypoints = len(SKELETON.keypoint_names)
    return points.reshape(-1, keypoints, 2), visibility.reshape(-1, keypoints).astype(np.uint8)


def _downsample(samples: np.ndarray) -> np.ndarray:
    size = len(samples) // OVERSAMPLING
    return samples.reshape(size, OVERSAMPLING, size, OVERSAMPLING).mean(axis=(1, 3))


def _smooth(image: np.ndarray, spread: float, times: int = 1) -> np.ndarray:
    """Return the image blurred along both axes, edges repeated.

    The kernel is `(spread, 1 - 2 spread, spread)`.
    """
    for _ in range(times):
        for axis in (0, 1):
            padded = np.pad(image, [(1, 1) if axis == a else (0, 0) for a in (0, 1)], mode="edge")
            before, after = (
                (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            )
            image = (1 - 2 * spread) * image + spread * (before + after)
    return image


def _shadow(canvas: Canvas, flies: Sequence[Fly], arena: Arena) -> np.ndarray | float:
    """Return how much of the light the animals take from the floor, 0..1.

    It is a soft shadow on the side away from the light.
    """
    if not flies:
        return 0.0
    step = -0.05 * flies[0].unit_px * canvas.light
    near = _downsample(canvas.cover)
    shifted = np.roll(near, (round(step.imag), round(step.real)), axis=(0, 1))
    return arena.shadow * (0.6 * _smooth(shifted, 0.25, 2) + 0.4 * _smooth(near, 0.3, 6))


def _paint_litter(canvas: Canvas, rng: np.random.Generator, fly: Fly) -> None:
    """Paint in some frames what lies on the animal: crumbs, each near a keypoint, or a fibre."""
    for _ in range(int(rng.choice(3, p=(0.7, 0.2, 0.1)))):
        near = fly.landmarks[rng.integers(len(fly.landmarks))] + complex(
            *rng.normal(0, 0.02 * fly.unit_px, 2)
        )
        _paint_crumb(canvas, rng, near, rng.uniform(0.03, 0.055) * fly.unit_px)
    if rng.random() < 0.12:
        start, bend, end = fly.thorax.origin + 0.75 * fly.unit_px * np.exp(
            1j * rng.uniform(0, 2 * np.pi, 3)
        )
        share = np.linspace(0, 1, 9)
        curve = (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
        grey, radius = rng.choice((0.3, 0.9)), rng.uniform(0.4, 0.6)
        for ends in zip(curve[:-1].tolist(), curve[1:].tolist(), strict=True):
            paint_rod(canvas, ends, (radius, radius), grey)


def _paint_crumb(
    canvas: Canvas, rng: np.random.Generator, centre: complex, radius_px: float
) -> None:
    lobes = rng.normal(0, 0.1, 3) * np.exp(1j * rng.uniform(0, 2 * np.pi, 3))
    grey = rng.uniform(0.35, 0.6)

    def brush(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offset = (position - centre) / radius_px
        direction = offset / (np.abs(offset) + 1e-6)
        outline = 1 + sum((lobe * direction ** (k + 2)).real for k, lobe in enumerate(lobes))
        lit = 0.25 * (offset * canvas.light.conjugate()).real + 0.12 * np.sin(
            7 * offset.real
        ) * np.cos(6 * offset.imag)
        return edge((np.abs(offset) - outline) * radius_px), np.clip(grey + lit, 0, 1)

    canvas.paint(centre, 1.6 * radius_px, brush)


@lru_cache(maxsize=len(ARENAS))
def _draw_floor(settings: FliesSettings, number: int) -> np.ndarray:
    """Return a whole arena's floor with its wall, `(3 size, 3 size)` float32 in 0..1."""
    arena, extent = ARENAS[number], 3 * settings.size
    rng = np.random.default_rng((settings.seed, 0, number))
    frequency = np.hypot(np.fft.fftfreq(extent)[:, None], np.fft.rfftfreq(extent)) + 1 / extent
    spectrum = np.fft.rfft2(rng.standard_normal((extent, extent))) / frequency**arena.roughness
    texture = np.fft.irfft2(spectrum, (extent, extent))
    axis = (np.arange(extent) - (extent - 1) / 2) / settings.size
    position = axis + 1j * axis[:, None]
    lamp = np.exp(1j * np.deg2rad(arena.light_deg)).item()
    light = 1 + 0.06 * (position * lamp.conjugate()).real - 0.05 * np.abs(position) ** 2
    floor = (arena.floor + arena.texture * texture / texture.std()) * light + _specks(
        arena, extent, rng
    )
    wall = (np.abs(position) - 1.27) * settings.size
    floor *= 1 - 0.45 * np.clip(wall / 2, 0, 1) + 0.25 * np.exp(-((wall - 4) ** 2) / 4)
    return np.clip(floor, 0, 1).astype(np.float32)


def _specks(arena: Arena, extent: int, rng: np.random.Generator) -> np.ndarray:
    """Return the difference that grains make, dark and bright, `(extent, extent)`."""
    grains = np.zeros((extent, extent))
    count = int(arena.specks * extent**2 / 1e4)
    row, column = rng.integers(0, extent, (2, count))
    grains[row, column] = rng.choice((-1.6, 0.7), count) * rng.uniform(0.2, 1, count)
    return _smooth(grains, 0.22, 1)


def _crop_floor(settings: FliesSettings, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the floor around a place in the arena, uniform in area and clear of the wall."""
    offset = 0.82 * np.sqrt(rng.random()) * np.exp(1j * rng.uniform(0, 2 * np.pi)) * settings.size
    left, top = round(offset.real) + settings.size, round(offset.imag) + settings.size
    return _draw_floor(settings, number)[top : top + settings.size, left : left + settings.size]


def _expose(picture: np.ndarray, arena: Arena, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera makes of it, `(H, W, 1)` uint8: blur, gain and noise."""
    picture = _smooth(picture, arena.blur) * rng.uniform(0.94, 1.06)
    noise = (
        rng.standard_normal(picture.shape, np.float32)
        * arena.noise
        * np.sqrt(np.clip(picture, 0.05, 1))
    )
    return np.rint(np.clip(picture + noise, 0, 1) * 255).astype(np.uint8)[..., None]
