"""The page ``/ai``: static files, and the HTTP operations that they ask. docs/page.md tells people of it."""
