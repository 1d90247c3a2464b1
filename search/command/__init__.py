"""``python -m search``."""
