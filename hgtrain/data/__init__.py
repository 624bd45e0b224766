"""From files to batches and, inside the compiled graph, to confidence maps."""
