"""Digests of a model's training data and code; versions with the same digests differ only in parameters."""

import hashlib
from pathlib import Path

import pandas as pd

from scripts.training.evaluation import Labelled
from serving.model.hook import PREPROCESSING_FILE


def digest_of_rows(rows: Labelled) -> str:
    """Returns a SHA-256 of the inputs and the target, in their order, with the columns' names."""
    table = rows.inputs.assign(**{str(rows.target.name): rows.target})
    digest = hashlib.sha256("\0".join(map(str, table)).encode())
    for name in table:
        column = table[name]
        cells = column.astype("str") if column.dtype == object else column  # such as booleans and None
        digest.update(pd.util.hash_array(cells.to_numpy()).tobytes())
    return digest.hexdigest()


def digest_of_code() -> str:
    """Returns a SHA-256 of `preprocessing.py` and of the modules in this folder."""
    digest = hashlib.sha256()
    for file in (PREPROCESSING_FILE, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()
