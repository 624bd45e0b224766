"""How the parts of a fly are painted: anti-aliased shapes, lit from one side, put over each other.

Positions are complex numbers as in `anatomy`.
"""

from collections.abc import Callable

import numpy as np

from hgtrain.data.flies.anatomy import (
    ABDOMEN_TIP,
    EYES,
    FEET,
    HEAD,
    KNEES,
    THORAX,
    WINGS,
    Axes,
    Fly,
)

Brush = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Gives coverage and grey, both 0..1, of positions in the image."""
Pattern = Callable[[np.ndarray], np.ndarray]
"""Gives the grey, 0..1, of positions on a part, as shares of its half axes."""

OVERSAMPLING = 2
# Across the wing, as shares of its half width there, 1 at the leading edge.
VEINS = np.array((-0.55, -0.12, 0.3, 0.68), np.float32)
# Roots and tips of the bristles of the left side, as shares of the thorax's half axes.
BRISTLES = (
    (0.45 + 0.8j, 0.25 + 1.15j),
    (-0.25 + 0.85j, -0.55 + 1.1j),
    (-0.55 + 0.3j, -0.95 + 0.42j),
    (-1.05 + 0.38j, -1.5 + 0.5j),
    (-1.18 + 0.14j, -1.65 + 0.16j),
)


class Canvas:
    """A square picture of the animals alone, painted from bottom to top.

    There are `OVERSAMPLING` (S) samples to a pixel along each axis.

    Attributes:
        grey: Premultiplied by `cover`, `(S * size, S * size)` float32 in 0..1.
        cover: `(S * size, S * size)` float32 in 0..1.
        light: The direction in the image from which light falls, of length one.
        passing: `(K,)` share of each watched landmark that what was painted later lets through.
    """

    def __init__(self, size: int, landmarks: np.ndarray, light: complex) -> None:
        samples = size * OVERSAMPLING
        axis = ((np.arange(samples) + 0.5) / OVERSAMPLING - 0.5).astype(np.float32)
        self.grid = axis + 1j * axis[:, None]
        self.grey, self.cover = np.zeros((2, samples, samples), np.float32)
        self.light = light / abs(light)
        self.passing = np.ones(len(landmarks))
        self._watched = np.zeros(len(landmarks), bool)
        self._columns = np.rint((landmarks.real + 0.5) * OVERSAMPLING - 0.5).astype(int)
        self._rows = np.rint((landmarks.imag + 0.5) * OVERSAMPLING - 0.5).astype(int)

    def paint(self, centre: complex, radius_px: float, brush: Brush) -> None:
        """Put a part, all of it within a circle, over what is there."""
        rows, columns = _span(centre.imag, radius_px), _span(centre.real, radius_px)
        if not self.grid[rows, columns].size:
            return
        cover, grey = brush(self.grid[rows, columns])
        self.cover[rows, columns] += cover * (1 - self.cover[rows, columns])
        self.grey[rows, columns] += cover * (grey - self.grey[rows, columns])
        row, column = self._rows - rows.start, self._columns - columns.start
        inside = (row >= 0) & (row < cover.shape[0]) & (column >= 0) & (column < cover.shape[1])
        for k in np.flatnonzero(inside & self._watched):
            self.passing[k] *= 1 - float(cover[row[k], column[k]])

    def watch(self, landmarks: int | list[int]) -> None:
        """Follow from now on what is painted over these landmarks."""
        self._watched[landmarks] = True


def _span(middle: float, radius_px: float) -> slice:
    first = (middle - radius_px + 0.5) * OVERSAMPLING - 0.5
    last = (middle + radius_px + 0.5) * OVERSAMPLING - 0.5
    return slice(max(0, int(np.floor(first))), max(0, int(np.ceil(last)) + 1))


def edge(distance_px: np.ndarray) -> np.ndarray:
    """Return the coverage of samples at a signed distance from an outline, negative inside."""
    return np.clip(0.5 - distance_px * OVERSAMPLING, 0, 1)


def paint_fly(canvas: Canvas, fly: Fly, first: int = 0) -> None:
    """Paint a fly, its parts from the legs up to the upper wing.

    Args:
        canvas: What to paint on.
        fly: Painted over what is there.
        first: Where among the canvas's landmarks those of this fly begin.
    """

    def watch(*keypoints: int) -> None:
        canvas.watch([first + k for k in keypoints])

    for joints in fly.legs:
        _paint_leg(canvas, joints, fly.unit_px)
    watch(*KNEES, *FEET)
    _paint_abdomen(canvas, fly)
    watch(ABDOMEN_TIP)
    _paint_head(canvas, fly)
    watch(HEAD, *EYES)
    _paint_thorax(canvas, fly)
    watch(THORAX)
    for wing in (1 - fly.upper_wing, fly.upper_wing):
        _paint_wing(canvas, fly, wing)
        watch(WINGS[wing])


def paint_rod(
    canvas: Canvas, ends: tuple[complex, complex], radii_px: tuple[float, float], grey: float
) -> None:
    """Paint a straight rod with round ends, its radius given at both, lit as a cylinder."""
    start, along = ends[0], ends[1] - ends[0]
    side = 1j * along / abs(along)
    lit = 0.35 * (side * canvas.light.conjugate()).real

    def brush(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offset = position - start
        share = np.clip((offset * along.conjugate()).real / abs(along) ** 2, 0, 1)
        radius = radii_px[0] + (radii_px[1] - radii_px[0]) * share
        across = np.clip((offset * side.conjugate()).real / radius, -1, 1)
        return edge(np.abs(offset - share * along) - radius), grey * (1 + lit * across)

    canvas.paint(start + along / 2, abs(along) / 2 + max(radii_px) + 1, brush)


def paint_dome(
    canvas: Canvas,
    axes: Axes,
    half_axes: tuple[float, float],
    pattern: Pattern,
    gloss: float = 0.12,
    taper: float = 0.0,
) -> None:
    """Paint an ellipsoid seen from above, with a highlight.

    Args:
        canvas: What to paint on.
        axes: At the centre of the ellipsoid.
        half_axes: In units.
        pattern: What its surface looks like.
        gloss: Strength of the highlight.
        taper: How much narrower it is behind.
    """
    a, b = half_axes
    unit_px = abs(axes.forward)
    light = np.conj(canvas.light / axes.forward * unit_px).item()

    def brush(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = axes.local(position)
        u = local.real / a
        v = local.imag / (b * (1 + taper * np.clip(u, -1, 1)))
        radius = np.hypot(u, v) + 1e-6
        distance = (radius - 1) * radius / (np.hypot(u / a, v / b) + 1e-6) * unit_px
        height = np.sqrt(np.clip(1 - radius**2, 0, 1))
        toward = u * light.real + v * light.imag
        shade = 0.42 + 0.4 * height + 0.3 * toward
        highlight = gloss * np.exp(
            -((u - 0.4 * light.real) ** 2 + (v - 0.4 * light.imag) ** 2) / 0.06
        )
        return edge(distance), np.clip(pattern(u + 1j * v) * shade + highlight, 0, 1)

    canvas.paint(axes.origin, max(a, b * (1 + taper)) * unit_px + 1, brush)


def _paint_leg(canvas: Canvas, joints: np.ndarray, unit_px: float) -> None:
    coxa, knee, ankle, foot = joints.tolist()
    for ends, radii, grey in (
        ((ankle, foot), (0.0115, 0.0095), 0.16),
        ((knee, ankle), (0.017, 0.012), 0.27),
        ((coxa, knee), (0.026, 0.018), 0.33),
    ):
        paint_rod(canvas, ends, (radii[0] * unit_px, radii[1] * unit_px), grey)


def _paint_abdomen(canvas: Canvas, fly: Fly) -> None:
    def bands(at: np.ndarray) -> np.ndarray:
        # Each segment darkens towards its rear edge; the last ones are dark altogether.
        segment = (0.9 - at.real) * 3.1 + 0.25 * at.imag**2
        dark = np.clip((segment % 1 - 0.45) * 2.2, 0, 1) + np.clip((-at.real - 0.62) * 4, 0, 1)
        return 0.62 * (1 - fly.stripes * np.clip(dark, 0, 1))

    paint_dome(canvas, fly.abdomen, (fly.half_lengths[2], fly.half_widths[2]), bands, taper=0.2)


def _paint_head(canvas: Canvas, fly: Fly) -> None:
    a, b = fly.half_lengths[0], fly.half_widths[0]
    for side in (1, -1):
        antenna = (
            fly.head.place(complex(0.8 * a, 0.2 * b * side)),
            fly.head.place(complex(1.55 * a, 0.42 * b * side)),
        )
        paint_rod(canvas, antenna, (0.014 * fly.unit_px, 0.008 * fly.unit_px), 0.3)
    paint_dome(
        canvas, fly.head, (a, b), lambda at: 0.46 - 0.16 * np.exp(-(at.real**2 + at.imag**2) / 0.03)
    )
    for side in (1, -1):
        eye = fly.head.moved(complex(fly.eye.real, fly.eye.imag * side), 0.3 * side)
        paint_dome(
            canvas,
            eye,
            (0.98 * a, 0.43 * b),
            lambda at: np.full(at.shape, 0.22, np.float32),
            gloss=0.35,
        )


def _paint_thorax(canvas: Canvas, fly: Fly) -> None:
    def lines(at: np.ndarray) -> np.ndarray:
        across = np.abs(np.abs(at.imag) - 0.28)
        return 0.47 - 0.13 * np.exp(-(across**2) / 0.008) * (np.abs(at.real) < 0.7)

    a, b = fly.half_lengths[1], fly.half_widths[1]
    paint_dome(canvas, fly.thorax, (a, b), lines)
    scutellum = fly.thorax.moved(complex(-0.92 * a))
    paint_dome(
        canvas, scutellum, (0.32 * a, 0.5 * b), lambda at: np.full(at.shape, 0.46, np.float32)
    )
    for root, tip in BRISTLES:
        for side in (1, -1):
            ends = (
                complex(root.real * a, side * root.imag * b),
                complex(tip.real * a, side * tip.imag * b),
            )
            hair = (fly.thorax.place(ends[0]), fly.thorax.place(ends[1]))
            paint_rod(canvas, hair, (0.006 * fly.unit_px, 0.003 * fly.unit_px), 0.1)


def _paint_wing(canvas: Canvas, fly: Fly, wing: int) -> None:
    """Paint a wing: clear membrane, dark rim and veins, the stout one along the leading edge."""
    axes, length, width = fly.wings[wing], fly.wing_length, fly.wing_width
    leading = (-1, 1)[wing]

    def brush(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = axes.local(position)
        along, across = local.real / length, local.imag * leading
        rear = np.clip(along / 0.58, 0, 1)
        fore = np.maximum((along - 0.58) / 0.42, 0)
        half = (
            width
            * (0.14 + 0.86 * rear * rear * (3 - 2 * rear))
            * np.sqrt(np.maximum(1 - fore**2, 1e-4))
        )
        u, v = fore, across / width
        radius = np.hypot(u, v)
        rounded = (radius - 1) * radius / (np.hypot(u / (0.42 * length), v / width) + 1e-6)
        distance = (
            np.where(along > 0.58, rounded, np.maximum(np.abs(across) - half, -local.real))
            * fly.unit_px
        )
        share = across / half
        to_vein = np.abs(share - VEINS[:, None, None]).min(axis=0) * half
        crossing = np.minimum(
            np.where((share > -0.12) & (share < 0.3), np.abs(along - 0.5), 1),
            np.where((share > -0.55) & (share < -0.12), np.abs(along - 0.7), 1),
        )
        to_vein = np.minimum(to_vein, crossing * length) * fly.unit_px
        rim = np.clip(1 + distance / np.where(share > 0, 1.0, 0.6), 0, 1)
        line = np.maximum(np.clip(1 - to_vein / 0.55, 0, 1), rim)
        sheen = 0.1 * np.sin(9 * along + 5 * share)
        opacity = 0.33 + 0.4 * line
        return edge(distance) * opacity, np.clip(0.66 + sheen - 0.5 * line, 0, 1)

    canvas.paint(
        axes.place(complex(length / 2)), np.hypot(length / 2, width) * fly.unit_px + 1, brush
    )
