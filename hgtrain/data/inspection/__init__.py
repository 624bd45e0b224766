"""Looks through datasets for what is wrong."""
