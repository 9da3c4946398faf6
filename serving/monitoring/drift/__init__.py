"""Drift: how the rows of now differ from the reference rows that a model came with."""
