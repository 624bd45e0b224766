"""Runs from SLEAP training folders."""
