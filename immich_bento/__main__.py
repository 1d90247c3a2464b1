"""``python -m immich_bento``: see ``immich_bento.command``."""

import sys

from immich_bento.command import main

if __name__ == "__main__":
    sys.exit(main())
