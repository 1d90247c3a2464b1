"""``python -m search``: see ``search.command``."""

import sys

from search.command import main

if __name__ == "__main__":
    sys.exit(main())
