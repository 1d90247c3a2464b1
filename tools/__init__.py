"""The workshop: what is run in the repository, never in a Bento."""
