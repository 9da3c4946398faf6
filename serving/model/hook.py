"""The identity of `preprocessing.py`: the code that turns raw rows into model inputs.

Training logs the digest with the model; preparing compares it with the file here.
"""

import hashlib
from pathlib import Path

PREPROCESSING_FILE = Path(__file__).resolve().parents[2] / "preprocessing.py"
"""The hook of this checkout or Bento."""

DIGEST_KEY = "preprocessing_sha256"
"""Key in the MLmodel file's `metadata` under which training logs the digest."""


def preprocessing_digest(file: Path = PREPROCESSING_FILE) -> str:
    r"""Returns the SHA-256 of the hook's text as 64 hexadecimal digits.

    Line endings are normalized to `\n`, so that checkouts on all systems have the same digest.

    Raises:
        FileNotFoundError: the file is not there.
    """
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
