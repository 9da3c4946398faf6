"""Commands, to be run from the project's folder: `.venv/bin/python scripts/train.py --help`."""
