"""Immich's machine-learning protocol."""
