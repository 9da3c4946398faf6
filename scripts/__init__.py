"""Commands, to be run from the project's folder: `python scripts/train.py --help`."""
