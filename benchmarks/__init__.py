"""This project beside what a user would pick instead: the same models and rows, in one run."""
