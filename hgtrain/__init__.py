"""Trains stacked-hourglass pose networks from HDF5 datasets."""

__version__ = "0.1.0"
