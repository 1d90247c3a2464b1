"""Benchmarks: ``python -m tools.bench`` lists them. Each states what it compares, and runs its peer in the same run."""
