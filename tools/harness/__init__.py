"""Shared by tests and benchmarks: the service as a process, Immich's requests, rendered pages, a tiny CLIP, a hub."""
