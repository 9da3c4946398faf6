"""Prepared models: schema, files, and the state that processes share."""
