"""The database: connections, migrations, our own index, statistics."""
