"""Bytes to typed columns, and arrays back to bytes: one file per form."""
