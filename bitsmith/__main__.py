"""``python -m bitsmith`` is the command line."""

from bitsmith.cli import main

if __name__ == "__main__":
    main()
