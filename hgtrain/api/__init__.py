"""hgtrain for Python programs: what the commands do, as functions and methods."""
