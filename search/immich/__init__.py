"""Immich's database and API."""
