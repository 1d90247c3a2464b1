"""`python -m search`."""
