"""Work beside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def call_aside(function: Callable[[], T]) -> "asyncio.Future[T]":
    """Calls a function in a thread of its own, which does not keep the process from ending.

    `asyncio.to_thread` does: the interpreter waits for its threads, and a function may hang.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(future.set_result, function())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            settle = partial(future.set_exception, as_exception(error))
        # The loop may have been closed meanwhile: nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, daemon=True).start()
    return future


def as_exception(error: BaseException) -> Exception:
    """Returns an exception that a future takes, and that ends nothing but what awaits it.

    Models do exit, panic in Rust, or raise StopIteration, which a future refuses.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
