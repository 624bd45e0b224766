"""A run directory: its files, resuming, loading a finished run."""
