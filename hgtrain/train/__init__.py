"""The training loop: the compiled step inside, plain Python outside."""
