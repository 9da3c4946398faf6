"""What was moved has to be put back, also where whoever has to do it does not answer at once."""

import time
from collections.abc import Callable
from typing import TypeVar

from scripts.lifecycle import LifecycleError

PUT_BACK_SECONDS = 60
"""For so long a registry or a cluster that does not answer is asked to put back what was moved."""

PAUSE_SECONDS = 2
"""Between two attempts."""

Done = TypeVar("Done")


def retry_put_back(put_back: Callable[[], Done], say: Callable[[str], None]) -> Done:
    """Puts something back; tries again for a while.

    Args:
        put_back: does it. A `LifecycleError` whose exit code is not that of a plain one is final.
        say: tells a sentence.

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
                say(f"{error}; trying again for {PUT_BACK_SECONDS} s")
                has_told = True
        time.sleep(PAUSE_SECONDS)
