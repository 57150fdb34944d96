"""``python -m stormsweep``."""

from stormsweep.cli import main

if __name__ == "__main__":
    main()
