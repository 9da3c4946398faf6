"""Runs work outside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def call_aside(function: Callable[[], T]) -> "asyncio.Future[T]":
    """Calls a function in a daemon thread, which does not keep the process from exiting.

    With `asyncio.to_thread`, the interpreter would wait for a function that hangs.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(future.set_result, function())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            settle = partial(future.set_exception, as_exception(error))
        # The loop may be closed: then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, daemon=True).start()
    return future


def as_exception(error: BaseException) -> Exception:
    """Returns an exception that a future accepts, and that ends only the code that awaits it.

    Models may call exit, panic in Rust, or raise StopIteration, which futures reject.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
