"""The version of this project, in its only place: pyproject.toml, the status page and the log take it from here."""

VERSION = "0.1.0"
"""Semantic versioning. CHANGELOG.md tells what each version changed."""
