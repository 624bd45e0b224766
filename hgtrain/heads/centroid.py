"""The first head of top-down: where animals are, one point for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from keras import KerasTensor

from hgtrain import poses
from hgtrain.coords import Turn
from hgtrain.heads import averaging
from hgtrain.heads.base import Outputs, Target, output_layers
from hgtrain.heads.decoding.duplicates import suppress_duplicates
from hgtrain.heads.decoding.extent import Size, within_image
from hgtrain.heads.decoding.grouping import Rules, group_peaks
from hgtrain.heads.decoding.peak_search import PeakSearch, find_peaks
from hgtrain.heads.losses import map_losses
from hgtrain.heads.targets.centroids import centroids
from hgtrain.heads.targets.confidence_maps import multi_confidence_maps
from hgtrain.heads.targets.counted_cells import Grid, map_weights
from hgtrain.heads.targets.offsets import (
    disc_weights,
    nearest_offset_maps,
    offset_losses,
)
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton, tree_edges

CONFMAPS, OFFSETS = "confmaps", "offsets"
LAYERS = {CONFMAPS: "CentroidConfmapsHead", OFFSETS: "OffsetRefinementHead"}
DEFAULT_INSTANCES = 8
NEAREST_SIGMAS = 2.0
"""Two peaks nearer to each other are of one hill: the sum of two such Gaussians has one top."""


@dataclass(frozen=True)
class Centroid:
    """A confidence map of the centroids of all animals.

    Attributes:
        stride: Px of the network's input for each cell.
        sigma_px: Standard deviation of the Gaussians, in px of the network's input.
        max_instances: How many animals are found at most.
        anchor: The keypoint that is an animal's centroid; None for the middle of its points.
        loss_weight: Factor of the map's loss.
        offsets: Whether an offset map says where in a cell the centroid is.
        offsets_loss_weight: Factor of its loss.
        peak_threshold: Height from which a peak counts.
        complete: Whether every animal of a labelled frame is labelled.
    """

    stride: int
    sigma_px: float
    max_instances: int
    anchor: int | None = None
    loss_weight: float = 1.0
    offsets: bool = False
    offsets_loss_weight: float = 1.0
    peak_threshold: float = 0.2
    complete: bool = True
    keypoints: ClassVar[int] = 1
    several_animals: ClassVar[bool] = True
    crop: ClassVar[None] = None

    @classmethod
    def of_skeleton(
        cls,
        skeleton: Skeleton,
        stride: int,
        complete: bool,
        max_instances: int | None,
        anchor: str | None,
        **keys: Any,
    ) -> "Centroid":
        """Return the head of a dataset's skeleton, with the keys of its section."""
        keys |= {"anchor": skeleton.keypoint_index(anchor), "complete": complete}
        return cls(stride, max_instances=max_instances or DEFAULT_INSTANCES, **keys)

    @property
    def outputs(self) -> dict[str, int]:
        """Channels of each output, by name."""
        return {CONFMAPS: 1} | ({OFFSETS: 2} if self.offsets else {})

    def layers(self, features: KerasTensor, stack: int, stacks: int) -> dict[str, KerasTensor]:
        """Return the outputs `(B, H, W, C)` float32 of one stack; linear, the map peaks at 1.

        The last stack's layers have the names the reference gives its heads, so that weights fit
        by name.
        """
        return output_layers(self.outputs, LAYERS, features, stack, stacks)

    def targets(
        self, points: tf.Tensor, weights: tf.Tensor, height: int, width: int
    ) -> dict[str, Target]:
        """Return the maximum of a Gaussian for each animal's centroid, weighted by cell."""
        middles = centroids(points, self.anchor)[:, :, None]
        maps = multi_confidence_maps(middles, height, width, self.stride, self.sigma_px)
        grid = Grid(height, width, self.stride)
        # An animal with any point has a centroid.
        unknown = tf.zeros_like(weights[..., :1], tf.bool)
        targets = {CONFMAPS: Target(maps, map_weights(points, unknown, maps, grid, self.complete))}
        if self.offsets:
            ways = nearest_offset_maps(middles, height, width, self.stride)
            targets[OFFSETS] = Target(ways, disc_weights(maps, tf.ones_like(maps[:, 0, 0])))
        return targets

    def losses(
        self, outputs: Outputs, targets: Mapping[str, Target], hard_keypoint_mining: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the weighted loss of each example, `(B,)` float32, by output."""
        losses = {CONFMAPS: self.loss_weight * map_losses(outputs[CONFMAPS], *targets[CONFMAPS])}
        if self.offsets:
            of_offsets = offset_losses(outputs[OFFSETS], *targets[OFFSETS])
            losses[OFFSETS] = self.offsets_loss_weight * of_offsets
        return losses

    def confmaps(self, outputs: Outputs) -> tf.Tensor:
        """Return the confidence map `(B, h, w, 1)` among the outputs of a stack."""
        return outputs[CONFMAPS]

    def averaged(
        self, views: Sequence[tuple[Turn, Outputs]], symmetries: Sequence[tuple[int, int]]
    ) -> dict[str, tf.Tensor]:
        """Return the mean over views of an image.

        Mirrored ones do not count where an animal's centroid is a keypoint that has a partner:
        there it is the partner that is found.
        """
        is_sided = any(self.anchor in pair for pair in symmetries)
        own: list[averaging.Source] = [None if is_sided else (0, 1.0)]
        sources = {CONFMAPS: averaging.of_maps(own), OFFSETS: averaging.of_vectors(own)}
        return averaging.mean_outputs(views, self.outputs, sources)

    def decode(
        self, outputs: Outputs, refinement: str = "unbiased", size: Size | None = None
    ) -> Poses:
        """Return the peaks as animals of one keypoint, the highest first.

        Of peaks that are too near to each other for two animals the highest stays.
        """
        outputs = within_image(outputs, size, self.stride)
        search = PeakSearch(self.max_instances, self.peak_threshold, self.sigma_px, self.stride)
        peaks = find_peaks(outputs[CONFMAPS], outputs.get(OFFSETS), search, refinement, size)
        nearest = NEAREST_SIGMAS * self.sigma_px
        points, values, valid = (each[:, 0] for each in peaks)
        kept = suppress_duplicates(points, values, valid, nearest)
        peaks = peaks._replace(valid=kept[:, None])
        return group_peaks(None, peaks, tree_edges((), 1), self.stride, Rules(self.max_instances))

    def labelled(self, points: np.ndarray) -> np.ndarray:
        """Return the centroids `(n, I, 1, 2)` px of animals with points `(n, I, K, 2)` px."""
        return poses.centroids(points, self.anchor)[:, :, None]
