"""A dataset that the HDF5 library reads without ever coming to an end."""


def make_endless(path):
    """Damage a dataset in the hgtrain format.

    Free space of no size in the heap that holds its names.

    The library looks for a text behind it, goes on by its size, and so for ever.
    """
    content = bytearray(path.read_bytes())
    first = content.rindex(b"GCOL") + 16
    # An object is its index (0: free space), its references, padding, and its size.
    content[first : first + 16] = bytes(16)
    path.write_bytes(content)
    return path
