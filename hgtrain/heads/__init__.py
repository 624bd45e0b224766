"""What a network predicts: targets, losses and decoding of one kind of head each."""
