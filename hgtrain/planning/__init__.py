"""What a config costs, and which to choose."""
