"""Devices, replicas and workers that train together."""
