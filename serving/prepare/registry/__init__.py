"""Queries the registry: which version an alias or a stage names."""
