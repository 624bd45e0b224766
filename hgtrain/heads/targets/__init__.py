"""What outputs are to be, and which cells of them count."""
