"""Benchmarks; ``python -m tools.bench`` lists them. Each says what it compares, and runs its peer in the same run."""
