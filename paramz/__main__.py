"""The command line as ``python -m paramz``, where its script is not on the path."""

from paramz.cli import main

if __name__ == "__main__":
    main()
