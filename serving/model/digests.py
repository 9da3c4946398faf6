"""The digest of a model's files: the same at registration and after pulling."""

import hashlib
from pathlib import Path

DIGEST_TAG = "serving.digest"
"""Tag of a version in the registry: the digest of its files at registration."""


def digest_of(folder: Path) -> str:
    """Returns the SHA-256 over the relative names and contents of all files, in the order of the names."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        # MLflow adds the first when it downloads; loading a model's code creates the second, which pulling deletes.
        if file == folder / "registered_model_meta" or "__pycache__" in file.relative_to(folder).parts:
            continue
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()
