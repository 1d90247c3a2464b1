"""The PostgreSQL that pip brings."""
