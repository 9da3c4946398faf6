"""Batching: rows of several requests share one model call if that is faster."""
