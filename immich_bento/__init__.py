"""The command line of everything: ``python -m immich_bento`` serve, models, search, doctor, completion."""
