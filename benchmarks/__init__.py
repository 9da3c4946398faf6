"""This project against its alternatives: the same models and rows, in one run."""
