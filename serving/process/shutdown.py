"""Graceful shutdown of a worker: not ready at once, drains, finishes requests in flight, then cuts off."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

LINGER_SECONDS = 1.0
"""Time for the connection accepted last to send its request."""


class Replacing(NamedTuple):
    """How a worker makes way for another one."""

    withdraw: Callable[[], None]
    """Stops accepting connections; other workers share the socket."""
    replace: Callable[[], None]
    """Starts the shutdown."""


def end_gracefully(begin: Callable[[], None], drain_seconds: float, shutdown_seconds: float) -> Replacing:
    """Replaces the server's SIGTERM handler by a shutdown in three steps.

    `begin` is called at once; after `drain_seconds` the server stops accepting connections and finishes requests in
    flight; `shutdown_seconds` later it cuts them off. Called in the event loop's thread while the server starts.

    Returns:
        How a worker ends when another one replaces it, without draining: load balancers need not notice.

    Source: `Server.handle_exit` in uvicorn: the first signal ends it gracefully, a SIGINT after it at once.
    """
    loop = asyncio.get_running_loop()
    handle_exit = signal.getsignal(signal.SIGTERM)
    if not callable(handle_exit):  # no server runs here
        return Replacing(lambda: None, begin)
    is_ending = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if is_ending:
            return
        is_ending = True
        loop.call_soon_threadsafe(end, number, frame, drain_seconds)

    def end(number: int, frame: FrameType | None, seconds: float) -> None:
        begin()
        loop.call_later(seconds, handle_exit, number, frame)
        loop.call_later(seconds + shutdown_seconds, handle_exit, signal.SIGINT, frame)

    def withdraw() -> None:
        for server in getattr(getattr(handle_exit, "__self__", None), "servers", ()):
            server.close()

    def replace() -> None:
        # Lingers: a connection just accepted, whose request is not read yet, would be dropped.
        withdraw()
        end(signal.SIGTERM, None, LINGER_SECONDS)

    signal.signal(signal.SIGTERM, on_signal)
    return Replacing(withdraw, replace)
