"""Tries every model of the collection, and writes docs/compatibility.md: `make zoo`."""

import logging
import os
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from tests.support.models import fill_registry
from tests.support.shared import make_shared_folder, remove_shared_folder
from tests.zoo.collection import MODELS
from tests.zoo.comparing import Finding, find_out
from tests.zoo.table import TABLE, write_table


@cache
def _registry() -> tuple[str, Path]:
    """A registry and a BENTOML_HOME of this process."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["ZOO_FOLDER"]))
    return fill_registry(folder / "registry", {}), folder / "home"


def _try(name: str) -> Finding:
    logging.disable(logging.ERROR)
    try:
        return find_out(name, *_registry())
    except Exception:  # the next model is tried all the same
        return Finding(MODELS[name].library, name, "crashed", "", 0.0, [traceback.format_exc()], 1.0)


def main() -> int:
    """Returns 1 where an answer is wrong."""
    started = time.monotonic()
    wanted = sys.argv[1:]
    names = [name for name in MODELS if not wanted or any(word in name for word in wanted)]
    shared = make_shared_folder()
    findings = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(int(os.environ.get("JOBS", "2")), get_context("spawn")) as pool,
    ):
        os.environ["ZOO_FOLDER"] = folder
        for finding in pool.map(_try, names):
            findings.append(finding)
            print(
                f"{finding.name}: {finding.runtime}, {finding.difference:.2g}, x{finding.speed_up:.0f} {finding.reason}",
                *finding.wrong,
                sep="\n    ",
                flush=True,
            )
    if shared is not None:
        remove_shared_folder(shared)
    if not wanted:
        write_table(findings)
        print(f"{TABLE} is written", end="; ")
    n_wrong = sum(bool(finding.wrong) for finding in findings)
    print(f"{len(findings)} models in {time.monotonic() - started:.0f} s, {n_wrong} with wrong answers")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
