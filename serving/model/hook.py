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


def find_mismatch(digest: str | None) -> str | None:
    """Returns how the `preprocessing.py` of the training differs from the one here, as the end of a sentence.

    Args:
        digest: of the file that the model was trained with; None if there was none.

    Returns:
        None if they are the same.
    """
    if digest is None:
        return None
    try:
        here = preprocessing_digest()
    except FileNotFoundError:
        here = None
    if digest == here:
        return None
    return (
        f"was trained with another preprocessing.py (sha256 {digest[:12]}…, "
        f"here {here[:12] + '…' if here else 'there is none'})"
    )
