"""Draws an articulated fly with known keypoints."""
