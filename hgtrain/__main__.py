"""`python -m hgtrain` is `hgtrain`."""

from hgtrain.cli import main

if __name__ == "__main__":
    main()
