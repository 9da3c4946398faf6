"""Metrics of serving."""
