"""One module a command: its options, what it does top to bottom, what it prints.

To show its help must import little, so libraries are imported inside functions here.
"""
