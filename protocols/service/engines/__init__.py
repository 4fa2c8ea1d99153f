"""Databases as the service reaches them: SQLite and PostgreSQL, and what their failures mean."""
