"""What heads share that see one animal: a map of each keypoint, whose highest peak is the point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf
from keras import KerasTensor

from hgtrain.coords import Turn, cells_to_pixels
from hgtrain.heads import averaging
from hgtrain.heads.base import Outputs, Target, output_layers
from hgtrain.heads.decoding.extent import Size, near_image, within_image
from hgtrain.heads.decoding.peaks import DECODERS, refinement_radius, unrefined_peaks
from hgtrain.heads.losses import confmap_losses
from hgtrain.heads.targets.confidence_maps import confidence_maps
from hgtrain.heads.targets.offsets import disc_weights, offset_losses, offset_maps, offsets_at
from hgtrain.poses import Poses

CONFMAPS, OFFSETS = "confmaps", "offsets"


@dataclass(frozen=True)
class OneAnimal:
    """Confidence maps of one animal.

    Attributes:
        keypoints: How many.
        stride: Px of the network's input for each cell.
        sigma_px: Standard deviation of the Gaussians, in px of the network's input.
        loss_weight: Factor of the maps' loss.
        offsets: Whether offset maps say where in a cell the point is.
        offsets_loss_weight: Factor of their loss.
    """

    keypoints: int
    stride: int
    sigma_px: float
    loss_weight: float = 1.0
    offsets: bool = False
    offsets_loss_weight: float = 1.0
    max_instances: ClassVar[int] = 1
    LAYERS: ClassVar[dict[str, str]]

    @property
    def outputs(self) -> dict[str, int]:
        """Channels of each output, by name."""
        channels = {CONFMAPS: self.keypoints}
        return channels | {OFFSETS: 2 * self.keypoints} if self.offsets else channels

    def layers(self, features: KerasTensor, stack: int, stacks: int) -> dict[str, KerasTensor]:
        """Return the outputs `(B, H, W, C)` float32 of one stack; linear, maps peak at 1.

        The last stack's layers have the names the reference gives its heads, so that weights fit
        by name.
        """
        return output_layers(self.outputs, self.LAYERS, features, stack, stacks)

    def targets(
        self, points: tf.Tensor, weights: tf.Tensor, height: int, width: int
    ) -> dict[str, Target]:
        """Return Gaussians with unit peak, weighted `(B, K)`, and offsets, weighted a cell."""
        points, weights = points[:, 0], weights[:, 0]
        maps = confidence_maps(points, height, width, self.stride, self.sigma_px)
        targets = {CONFMAPS: Target(maps, weights)}
        if self.offsets:
            ways = offset_maps(points, height, width, self.stride)
            targets[OFFSETS] = Target(ways, disc_weights(maps, weights))
        return targets

    def losses(
        self, outputs: Outputs, targets: Mapping[str, Target], hard_keypoint_mining: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the weighted loss of each example, `(B,)` float32, by output."""
        of_maps = confmap_losses(outputs[CONFMAPS], *targets[CONFMAPS], hard_keypoint_mining)
        losses = {CONFMAPS: self.loss_weight * of_maps}
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
        """Return the mean over views of an image; a mirrored keypoint is its partner."""
        own: list[averaging.Source] = [
            (partner, 1.0) for partner in averaging.partners(self.keypoints, symmetries)
        ]
        sources = {CONFMAPS: averaging.of_maps(own), OFFSETS: averaging.of_vectors(own)}
        return averaging.mean_outputs(views, self.outputs, sources)

    def decode(
        self, outputs: Outputs, refinement: str = "unbiased", size: Size | None = None
    ) -> Poses:
        """Return the global peak of each map, its height as confidence.

        With offsets the point is the highest cell plus its offset. The animal's score is its mean
        confidence. What the maps say of padding counts for nothing.
        """
        outputs = within_image(outputs, size, self.stride)
        if self.offsets and refinement == "unbiased":
            cells, values = unrefined_peaks(outputs[CONFMAPS])
            cells += offsets_at(outputs[OFFSETS], cells)
        else:
            radius = refinement_radius(self.sigma_px, self.stride)
            cells, values = DECODERS[refinement](outputs[CONFMAPS], radius)
        points = near_image(cells_to_pixels(cells, self.stride), size, self.stride)
        confidence = tf.clip_by_value(values, 0.0, 1.0)
        scores = tf.reduce_mean(confidence, axis=-1)
        return Poses(points[:, None], confidence[:, None], scores[:, None])

    def labelled(self, points: np.ndarray) -> np.ndarray:
        """Return the points themselves: they are what is found."""
        return points
