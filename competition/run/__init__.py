"""A run: its folder, its typed records, and how a command opens it."""
