"""The stacked hourglass as a functional graph of stock Keras layers."""
