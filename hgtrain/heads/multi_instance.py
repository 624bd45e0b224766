"""The bottom-up head: maps of keypoints of all animals, and fields that tell animals apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from keras import KerasTensor

from hgtrain.coords import Turn
from hgtrain.heads import averaging
from hgtrain.heads.base import Outputs, Target, output_layers
from hgtrain.heads.decoding.extent import Size, within_image
from hgtrain.heads.decoding.grouping import Rules, group_peaks
from hgtrain.heads.decoding.peak_search import PeakSearch, find_peaks
from hgtrain.heads.losses import map_losses
from hgtrain.heads.targets.confidence_maps import multi_confidence_maps
from hgtrain.heads.targets.counted_cells import Grid, map_weights
from hgtrain.heads.targets.offsets import (
    disc_weights,
    nearest_offset_maps,
    offset_losses,
)
from hgtrain.heads.targets.part_affinity import part_affinity_fields
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton, tree_edges

CONFMAPS, OFFSETS, PAFS = "confmaps", "offsets", "pafs"
LAYERS = {
    CONFMAPS: "MultiInstanceConfmapsHead",
    OFFSETS: "OffsetRefinementHead",
    PAFS: "PartAffinityFieldsHead",
}
DEFAULT_INSTANCES = 8


@dataclass(frozen=True)
class MultiInstance:
    """Confidence maps, and part affinity fields of the skeleton's edges, of all animals at once.

    Attributes:
        keypoints: How many an animal has.
        edges: Pairs of keypoints.
        stride: Px of the network's input for each cell.
        sigma_px: Standard deviation of the Gaussians, in px of the network's input.
        paf_width_px: From an edge to where its field is a half, in px of the network's input.
        max_instances: How many animals are found at most.
        loss_weight: Factor of the maps' loss.
        paf_loss_weight: Factor of the fields' loss.
        offsets: Whether offset maps say where in a cell the point is.
        offsets_loss_weight: Factor of their loss.
        peak_threshold: Height from which a peak counts.
        min_line_score: From which two peaks are of one animal.
        min_keypoints: An animal has as many.
        assignment: How peaks are matched along an edge: exact, greedy.
        complete: Whether every animal of a labelled frame is labelled.
    """

    keypoints: int
    edges: tuple[tuple[int, int], ...]
    stride: int
    sigma_px: float
    paf_width_px: float
    max_instances: int
    loss_weight: float = 1.0
    paf_loss_weight: float = 1.0
    offsets: bool = False
    offsets_loss_weight: float = 1.0
    peak_threshold: float = 0.2
    min_line_score: float = 0.25
    min_keypoints: int = 1
    assignment: str = "exact"
    complete: bool = True
    several_animals: ClassVar[bool] = True
    crop: ClassVar[None] = None

    @classmethod
    def of_skeleton(
        cls,
        skeleton: Skeleton,
        stride: int,
        complete: bool,
        max_instances: int | None,
        **keys: Any,
    ) -> "MultiInstance":
        """Return the head of a dataset's skeleton, with the keys of its section."""
        keys |= {"max_instances": max_instances or DEFAULT_INSTANCES, "complete": complete}
        return cls(len(skeleton.keypoint_names), skeleton.edges, stride, **keys)

    @property
    def outputs(self) -> dict[str, int]:
        """Channels of each output, by name."""
        channels = {CONFMAPS: self.keypoints}
        if self.edges:
            channels[PAFS] = 2 * len(self.edges)
        return channels | {OFFSETS: 2 * self.keypoints} if self.offsets else channels

    def layers(self, features: KerasTensor, stack: int, stacks: int) -> dict[str, KerasTensor]:
        """Return the outputs `(B, H, W, C)` float32 of one stack; linear, maps peak at 1.

        The last stack's layers have the names the reference gives its heads, so that weights fit
        by name.
        """
        return output_layers(self.outputs, LAYERS, features, stack, stacks)

    def targets(
        self, points: tf.Tensor, weights: tf.Tensor, height: int, width: int
    ) -> dict[str, Target]:
        """Return the maximum of the animals' Gaussians and the sum of their fields, by cell.

        Cells near an animal weigh nothing in the maps of its keypoints that are not labelled, and
        in the fields of their edges, but where another animal's are.
        """
        maps = multi_confidence_maps(points, height, width, self.stride, self.sigma_px)
        grid = Grid(height, width, self.stride)
        unknown = (weights == 0) & tf.math.is_nan(points[..., 0])
        counted = map_weights(points, unknown, maps, grid, self.complete)
        targets = {CONFMAPS: Target(maps, counted)}
        if self.edges:
            fields = part_affinity_fields(
                points, self.edges, height, width, self.stride, self.paf_width_px
            )
            first, second = (
                tf.gather(unknown, ends, axis=2) for ends in zip(*self.edges, strict=True)
            )
            of_axes = tf.repeat(first | second, 2, axis=2)
            counted = map_weights(points, of_axes, fields, grid, self.complete)
            targets[PAFS] = Target(fields, counted)
        if self.offsets:
            ways = nearest_offset_maps(points, height, width, self.stride)
            targets[OFFSETS] = Target(ways, disc_weights(maps, tf.ones_like(maps[:, 0, 0])))
        return targets

    def losses(
        self, outputs: Outputs, targets: Mapping[str, Target], hard_keypoint_mining: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the weighted loss of each example, `(B,)` float32, by output."""
        of_maps = map_losses(outputs[CONFMAPS], *targets[CONFMAPS], hard_keypoint_mining)
        losses = {CONFMAPS: self.loss_weight * of_maps}
        if PAFS in targets:
            losses[PAFS] = self.paf_loss_weight * map_losses(outputs[PAFS], *targets[PAFS])
        if self.offsets:
            of_offsets = offset_losses(outputs[OFFSETS], *targets[OFFSETS])
            losses[OFFSETS] = self.offsets_loss_weight * of_offsets
        return losses

    def confmaps(self, outputs: Outputs) -> tf.Tensor:
        """Return the confidence maps `(B, h, w, K)` among the outputs of a stack."""
        return outputs[CONFMAPS]

    def averaged(
        self, views: Sequence[tuple[Turn, Outputs]], symmetries: Sequence[tuple[int, int]]
    ) -> dict[str, tf.Tensor]:
        """Return the mean over views of an image; mirrored keypoints and edges are their partners.

        For the field of an edge whose partner the skeleton lacks, mirrored views do not count.
        """
        own: list[averaging.Source] = [
            (partner, 1.0) for partner in averaging.partners(self.keypoints, symmetries)
        ]
        sources = {
            CONFMAPS: averaging.of_maps(own),
            OFFSETS: averaging.of_vectors(own),
            PAFS: averaging.of_vectors(averaging.partner_edges(self.edges, symmetries)),
        }
        return averaging.mean_outputs(views, self.outputs, sources)

    def decode(
        self, outputs: Outputs, refinement: str = "unbiased", size: Size | None = None
    ) -> Poses:
        """Return the animals that peaks and fields make, the best first, NaN where there are fewer.

        With offsets a point is the cell of its peak plus the offset there.
        """
        outputs = within_image(outputs, size, self.stride)
        search = PeakSearch(self.max_instances, self.peak_threshold, self.sigma_px, self.stride)
        peaks = find_peaks(outputs[CONFMAPS], outputs.get(OFFSETS), search, refinement, size)
        rules = Rules(self.max_instances, self.min_line_score, self.min_keypoints, self.assignment)
        tree = tree_edges(self.edges, self.keypoints)
        return group_peaks(outputs.get(PAFS), peaks, tree, self.stride, rules)

    def labelled(self, points: np.ndarray) -> np.ndarray:
        """Return the points themselves: they are what is found."""
        return points
