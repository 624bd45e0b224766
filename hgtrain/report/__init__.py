"""The HTML page of a run and the comparison of several."""
