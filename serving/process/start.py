"""Starts BentoML where it can work; else ends with one line.

    python -m serving.process.start serve …   # as `python -m bentoml serve …`

BentoML makes its folder before it reads any code of ours, and shows a trace where that cannot be.
"""

import os
import sys
from pathlib import Path


def find_trouble(environment: dict[str, str]) -> str | None:
    """Returns why BentoML cannot work here; None where it can. Makes its folder."""
    given = environment.get("BENTOML_HOME")
    try:
        folder = Path(given or "~/bentoml").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no home folder"
        name = "BENTOML_HOME" if given else "HOME, where BENTOML_HOME is not set,"
        return f"the folder of prepared models ({name} names it) cannot be made: {given or '~/bentoml'}: {reason}"
    return None


def main(arguments: list[str]) -> None:
    """Becomes BentoML's process."""
    trouble = find_trouble(dict(os.environ))
    if trouble is not None:
        sys.exit(f"error: {trouble}")
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
