"""The engine on SQLite and segment files: one writer, many read-only readers."""
