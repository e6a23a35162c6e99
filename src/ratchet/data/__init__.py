"""Rows: reading, splitting, encoding."""
