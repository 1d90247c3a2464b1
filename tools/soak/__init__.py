"""``python -m tools.soak``: good callers beside hostile clients, kills and restarts, for an hour or as long as told."""
