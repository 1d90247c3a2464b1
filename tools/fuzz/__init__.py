"""``python -m tools.fuzz``: bytes that a fuzzer makes up, at whatever of ours reads them first."""
