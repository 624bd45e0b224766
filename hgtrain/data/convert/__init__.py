"""Brings labels of other programs in through sleap-io."""
