"""The database's schema and its functions, as numbered files that are applied once, in order."""
