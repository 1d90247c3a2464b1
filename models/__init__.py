"""Which weights exist, where they come from, and how they are verified."""
