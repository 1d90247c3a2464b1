"""Search for pictures: by the text in them, by meaning, and by both at once, in PostgreSQL."""
