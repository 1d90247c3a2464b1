"""``immich-bento doctor``: checks of one set-up, each with what to do about what it finds."""
