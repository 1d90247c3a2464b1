"""``python -m search``: see ``search.command.main``."""

import sys

from search.command.main import main

if __name__ == "__main__":
    sys.exit(main())
