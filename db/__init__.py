"""The database: its models, its migrations, every write and every read. Bytes and strings; no x86."""
