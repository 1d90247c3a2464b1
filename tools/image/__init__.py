"""The container image: ``python -m tools.image`` builds it of a Bento, ``tests/image`` runs it."""
