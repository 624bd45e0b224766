"""The fly of `builtin:flies`: its skeleton, its build and its poses.

Positions in the image are complex numbers, x + iy in pixels with pixel centres at integers.
Positions on the animal are complex too: real part forward, imaginary part to its left, in units of
`Fly.unit_px`; the thorax is the origin.
"""

from typing import NamedTuple

import numpy as np

from hgtrain.skeleton import Skeleton

LEGS = ("front_left", "front_right", "mid_left", "mid_right", "hind_left", "hind_right")
HEAD, EYES, THORAX, ABDOMEN_TIP, WINGS, KNEES, FEET = (
    0,
    [1, 2],
    3,
    4,
    [5, 6],
    list(range(7, 13)),
    list(range(13, 19)),
)
SKELETON = Skeleton(
    keypoint_names=(
        *("head", "eye_left", "eye_right", "thorax", "abdomen_tip", "wing_left", "wing_right"),
        *(f"knee_{leg}" for leg in LEGS),
        *(f"foot_{leg}" for leg in LEGS),
    ),
    edges=(
        *(
            (THORAX, HEAD),
            *((HEAD, eye) for eye in EYES),
            (THORAX, ABDOMEN_TIP),
            *((THORAX, wing) for wing in WINGS),
        ),
        *((THORAX, knee) for knee in KNEES),
        *zip(KNEES, FEET, strict=True),
    ),
    symmetries=((1, 2), (5, 6), *((left, left + 1) for left in (*KNEES[::2], *FEET[::2]))),
)

SIDES = (1, -1)
# Where a left leg starts and stands, and the side to which its knee points (-1: forward of the line
# between them).
COXAE = (0.10 + 0.06j, 0.00 + 0.08j, -0.10 + 0.07j)
STANCES = (0.48 + 0.31j, -0.06 + 0.58j, -0.50 + 0.45j)
KNEE_SIDES = (1, -1, -1)
FEMUR, TIBIA = 0.44, 0.34  # shares of a leg, the rest is the tarsus


class Axes(NamedTuple):
    """Where a part lies in the image: its origin, and the vector of one unit forward."""

    origin: complex
    forward: complex

    def place(self, local: complex) -> complex:
        """Return the position in the image of a position on the part."""
        return self.origin + self.forward * local.conjugate()

    def local(self, position: np.ndarray) -> np.ndarray:
        """Return the positions on the part of positions in the image."""
        return np.conj((position - self.origin) / self.forward)

    def moved(self, to: complex, turn_rad: float = 0.0) -> "Axes":
        """Return axes at a position on this part, turned to its left."""
        return Axes(self.place(to), self.forward * np.exp(-1j * turn_rad).item())


class Fly(NamedTuple):
    """One fly in one pose.

    Attributes:
        thorax: Axes at its centre.
        head: Axes at its centre.
        abdomen: Axes at its centre.
        half_lengths: Of head, thorax and abdomen, in units.
        half_widths: Of head, thorax and abdomen, in units.
        wings: Axes at the hinge, forward to the tip, left then right.
        wing_length: In units.
        wing_width: In units.
        legs: `(6, 4)` complex, positions in the image of coxa, knee, ankle and foot, in the order
            of `LEGS`.
        stripes: Darkness of the abdomen's bands.
        upper_wing: 0 or 1, the one that lies on top.
    """

    thorax: Axes
    head: Axes
    abdomen: Axes
    half_lengths: tuple[float, float, float]
    half_widths: tuple[float, float, float]
    wings: tuple[Axes, Axes]
    wing_length: float
    wing_width: float
    legs: np.ndarray
    stripes: float
    upper_wing: int

    @property
    def unit_px(self) -> float:
        """Length of one unit."""
        return abs(self.thorax.forward)

    @property
    def eye(self) -> complex:
        """Centre of the left eye on the head."""
        return complex(0.1 * self.half_lengths[0], 0.74 * self.half_widths[0])

    @property
    def landmarks(self) -> np.ndarray:
        """Positions of the keypoints in the image, `(K,)` complex."""
        eyes = [self.head.place(self.eye), self.head.place(self.eye.conjugate())]
        abdomen_tip = self.abdomen.place(complex(-self.half_lengths[2]))
        wings = [wing.place(complex(self.wing_length)) for wing in self.wings]
        body = [self.head.origin, *eyes, self.thorax.origin, abdomen_tip, *wings]
        return np.array([*body, *self.legs[:, 1], *self.legs[:, 3]])


def sample_fly(rng: np.random.Generator, centre: complex, unit_px: float) -> Fly:
    """Return a fly in a random pose and heading; the middle of its extent lies at `centre`."""
    forward = unit_px * np.exp(1j * rng.uniform(0, 2 * np.pi)).item()
    thorax = Axes(centre, forward).moved(0.08 + 0j)
    plump = rng.uniform(0.9, 1.12)
    half_lengths = (0.085, 0.185 * rng.uniform(0.95, 1.05), 0.255 * rng.uniform(0.9, 1.1))
    half_widths = (0.148 * rng.uniform(0.95, 1.05), 0.148 * rng.uniform(0.95, 1.05), 0.145 * plump)
    neck = thorax.moved(complex(half_lengths[1] - 0.035), rng.normal(0, 0.1))
    waist = thorax.moved(complex(0.06 - half_lengths[1]), rng.normal(0, 0.08))
    return Fly(
        thorax=thorax,
        head=neck.moved(complex(half_lengths[0])),
        abdomen=waist.moved(complex(-half_lengths[2])),
        half_lengths=half_lengths,
        half_widths=half_widths,
        wings=_sample_wings(rng, thorax),
        wing_length=0.78 * rng.uniform(0.94, 1.04),
        wing_width=0.15 * rng.uniform(0.93, 1.07),
        legs=_sample_legs(rng, thorax),
        stripes=rng.uniform(0.45, 0.8),
        upper_wing=int(rng.integers(2)),
    )


def _sample_wings(rng: np.random.Generator, thorax: Axes) -> tuple[Axes, Axes]:
    """Return the wings folded, both spread, or one held out as in courtship."""
    spread = rng.uniform(0.04, 0.26) + rng.normal(0, 0.03, 2)
    held = rng.choice(4, p=(0.72, 0.08, 0.1, 0.1))
    spread += {0: (0, 0), 1: (0.3, 0.3), 2: (0.6, 0.0), 3: (0.0, 0.6)}[int(held)]
    left, right = (
        thorax.moved(0.05 + 0.1j * side, side * (np.pi - angle))
        for side, angle in zip(SIDES, spread, strict=True)
    )
    return left, right


def _sample_legs(rng: np.random.Generator, thorax: Axes) -> np.ndarray:
    """Return the joints of six legs somewhere in a tripod gait.

    The front and hind legs of one side are in phase with the mid leg of the other side.
    """
    phase, stride = rng.uniform(0, 2 * np.pi), rng.choice((0.02, 0.08)) * rng.uniform(0.5, 1.2)
    size = rng.uniform(0.95, 1.05)
    legs = []
    for pair, (coxa, stance, knee_side) in enumerate(zip(COXAE, STANCES, KNEE_SIDES, strict=True)):
        for side in SIDES:
            step = stride * np.cos(phase + np.pi * ((pair % 2 == 0) == (side == 1))).item()
            wander = complex(*rng.normal(0, 0.028, 2))
            foot = size * stance + step + wander
            leg = _bend_leg(
                coxa, foot, 1.12 * size * abs(stance - coxa), knee_side, rng.uniform(-0.03, 0.03)
            )
            legs.append([thorax.place(joint if side == 1 else joint.conjugate()) for joint in leg])
    return np.array(legs)


def _bend_leg(
    coxa: complex, foot: complex, length: float, knee_side: int, ankle_bend: float
) -> tuple[complex, ...]:
    """Return coxa, knee, ankle and foot of a leg of that length.

    Coxa to ankle follow from two-segment inverse kinematics, the tarsus is added after that.
    """
    femur, shank = FEMUR * length, (1 - FEMUR) * length
    direction = (foot - coxa) / abs(foot - coxa)
    reach = float(np.clip(abs(foot - coxa), 0.75 * length, 0.97 * length))
    cosine = (femur**2 + reach**2 - shank**2) / (2 * femur * reach)
    knee = coxa + femur * direction * np.exp(1j * knee_side * np.arccos(cosine)).item()
    foot = coxa + reach * direction
    ankle = knee + (foot - knee) * complex(TIBIA / (1 - FEMUR), ankle_bend - 0.06 * knee_side)
    return coxa, knee, ankle, foot
