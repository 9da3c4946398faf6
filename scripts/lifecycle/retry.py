"""Retries a rollback while the registry or the cluster does not answer."""

import time
from collections.abc import Callable
from typing import TypeVar

from scripts.lifecycle import LifecycleError

PUT_BACK_SECONDS = 60
"""How long a rollback is retried."""

PAUSE_SECONDS = 2
"""Between two attempts."""

Done = TypeVar("Done")


def retry_put_back(put_back: Callable[[], Done], say: Callable[[str], None]) -> Done:
    """Rolls back; retries for `PUT_BACK_SECONDS`.

    Args:
        put_back: rolls back. A `LifecycleError` is final if its exit code differs from a plain one's.
        say: prints a sentence.

    Raises:
        LifecycleError: a final one, or the last.
    """
    give_up = time.monotonic() + PUT_BACK_SECONDS
    has_told = False
    while True:
        try:
            return put_back()
        except LifecycleError as error:
            is_final = error.exit_code != LifecycleError.exit_code
            if is_final or time.monotonic() > give_up:
                raise
            if not has_told:
                say(f"{error}; retrying for {PUT_BACK_SECONDS} s")
                has_told = True
        time.sleep(PAUSE_SECONDS)
