"""The weights that exist, where they come from, and how they are verified."""
