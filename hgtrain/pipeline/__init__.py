"""From frames to a batch on the device."""
