"""The config: its keys, their ranges, and messages with the line of a mistake."""
