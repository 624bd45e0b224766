"""A network for images whose size is known only when it runs.

So it is in a graph that is compiled once or exported.
"""

import keras
import tensorflow as tf
from keras import layers


def any_size(network: keras.Model) -> keras.Model:
    """Return what computes the same as `network` where height and width are unknown.

    That is the network itself where it can do so already; Keras's bilinear upsampling needs to know
    them. The weights of a copy are copies too.
    """
    if not any(map(_needs_size, network.layers)):
        return network
    copied = keras.models.clone_model(network, clone_function=_copied)
    copied.set_weights(network.get_weights())
    return copied


def _needs_size(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.UpSampling2D) and layer.interpolation != "nearest"


def _copied(layer: layers.Layer) -> layers.Layer:
    kind = _UpSamplingOfAnySize if _needs_size(layer) else type(layer)
    return kind.from_config(layer.get_config())


class _UpSamplingOfAnySize(layers.UpSampling2D):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        size = tf.shape(inputs)[1:3] * self.size
        # As Keras calls it once it knows the size.
        resized = tf.image.resize(inputs, size, method=self.interpolation)
        resized.set_shape(self.compute_output_shape(inputs.shape))
        return tf.cast(resized, inputs.dtype)
