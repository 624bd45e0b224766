"""Writes networks for programs without hgtrain."""
