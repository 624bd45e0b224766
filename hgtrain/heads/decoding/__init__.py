"""From outputs to animals."""
