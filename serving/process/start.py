"""Starts BentoML, or exits with one line if it cannot work.

    python -m serving.process.start serve …   # as `python -m bentoml serve …`

BentoML creates its folder before it imports our code, and shows a traceback if that fails.
"""

import os
import sys
from pathlib import Path


def find_trouble(environment: dict[str, str]) -> str | None:
    """Returns why BentoML cannot work here; None if it can. Creates its folder."""
    given = environment.get("BENTOML_HOME")
    try:
        folder = Path(given or "~/bentoml").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no home folder"
        name = "BENTOML_HOME" if given else "below HOME, as BENTOML_HOME is not set"
        return f"the folder of prepared models ({name}) cannot be created: {given or '~/bentoml'}: {reason}"
    return None


def main(arguments: list[str]) -> None:
    """Replaces this process by BentoML's."""
    trouble = find_trouble(dict(os.environ))
    if trouble is not None:
        sys.exit(f"error: {trouble}")
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
