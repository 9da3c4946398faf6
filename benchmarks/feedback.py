"""Measures what the feedback store takes: answers and truths per second, and bytes per row.

    .venv/bin/python -m benchmarks.feedback
    .venv/bin/python -m benchmarks.feedback --store postgresql://user:password@host/database

Calls the keeper's own functions in this process, with answers of a binary classifier. The PostgreSQL database should
be empty: tables named `serving_...` that are there already are used, and keep the rows.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from serving.monitoring.feedback.answers import Answer
from serving.monitoring.feedback.databases import SQLITE, StoreError
from serving.monitoring.feedback.messages import Feedback
from serving.monitoring.feedback.store import Store, open_store

MODEL = "churn"
ADDED_ROWS = 1_000
"""Answers that are added together: those of a message of the prediction log."""


def main() -> int:
    """Runs the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.feedback",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", default=SQLITE, help="as SERVING_FEEDBACK_STORE (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=200_000, help="answers, half of them with truth (%(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feedback-") as folder:
        try:
            with open_store(options.store, Path(folder)) as store:
                measure(store, options.rows)
        except StoreError as error:
            print(f"benchmarks.feedback: {error}", file=sys.stderr)
            return 2
        n_bytes = sum(file.stat().st_size for file in Path(folder).iterdir())
    if options.store == SQLITE:
        print(f"{n_bytes / options.rows:,.0f} bytes per answer, half of them with truth")
    return 0


def measure(store: Store, n_rows: int) -> None:
    """Prints the rates."""
    now = time.time()
    random = Random(0)  # noqa: S311  # no secret depends on it
    ids = [f"{random.getrandbits(128):032x}" for _ in range(n_rows)]
    answers = [answer(request_id, now - n_rows + n) for n, request_id in enumerate(ids)]
    parts = [answers[start : start + ADDED_ROWS] for start in range(0, n_rows, ADDED_ROWS)]
    print(f"{rate(lambda: [store.add_answers(part) for part in parts], n_rows):,.0f} answers/s")
    told = ids[::2]
    one_by_one = told[:1_000]
    singles = [body([request_id]) for request_id in one_by_one]
    single_rate = rate(lambda: [Feedback(single).keep(MODEL, store) for single in singles], len(singles))
    print(f"{single_rate:,.0f} truths/s, one per request")
    bulk = [body(told[start : start + ADDED_ROWS]) for start in range(0, len(told), ADDED_ROWS)]
    told_rate = rate(lambda: [Feedback(some).keep(MODEL, store) for some in bulk], len(told))
    print(f"{told_rate:,.0f} truths/s, {ADDED_ROWS:,} per request")


def answer(request_id: str, at: float) -> Answer:
    """Returns an answer with one row."""
    score = int(request_id, 16) % 1_000 / 1_000
    label = "Yes" if score > 0.5 else "No"
    probabilities = json.dumps({"No": 1 - score, "Yes": score}, separators=(",", ":"))
    return Answer(MODEL, request_id, 0, "champion", "1", at, None, label, None, score, probabilities, None)


def body(request_ids: list[str]) -> bytes:
    """Returns the body of a request with one truth for each id."""
    return json.dumps({"feedback": [{"request_id": one, "truth": "Yes"} for one in request_ids]}).encode()


def rate(action: Callable[[], object], n: int) -> float:
    """Returns how many per second an action does."""
    started = time.perf_counter()
    action()
    return n / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
