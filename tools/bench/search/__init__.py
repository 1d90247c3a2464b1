"""Benchmarks of search: how much it finds, and how fast."""
