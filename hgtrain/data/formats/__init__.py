"""The HDF5 formats: one module each, over what they share in `base`."""
