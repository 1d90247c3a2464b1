"""``python -m models``: see ``models.command``."""

import sys

from models.command import main

if __name__ == "__main__":
    sys.exit(main())
