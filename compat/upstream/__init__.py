"""Tasks passed on to other Immich ML servers."""
