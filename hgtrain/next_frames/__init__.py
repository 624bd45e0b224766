"""Which frames of a film to label next: what a network is unsure of, and no two that look alike."""
