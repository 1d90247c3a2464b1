"""The two routes of Immich's search bar, answered before Immich itself: docs/in-immich.md."""
