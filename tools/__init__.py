"""The workshop: programs that are run in the repository and are in no Bento."""
