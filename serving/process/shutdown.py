"""The end of a worker: not ready at once, answering for a while, then what is in flight, and no longer."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

LINGER_SECONDS = 1.0
"""In which a connection that was taken last brings its request."""


class Replacing(NamedTuple):
    """How a worker lets another one take its place."""

    withdraw: Callable[[], None]
    """Takes no new connections from now on; others have the same socket."""
    replace: Callable[[], None]
    """Begins the end."""


def end_gracefully(begin: Callable[[], None], drain_seconds: float, shutdown_seconds: float) -> Replacing:
    """Puts an end in three steps in the place of the server's own at SIGTERM.

    At once `begin` is called; after `drain_seconds` the server takes no new connections and finishes what is in
    flight; `shutdown_seconds` later it is cut off. Called in the event loop's thread while the server starts.

    Returns:
        How a worker ends that another one takes the place of: no load balancer has to notice anything.

    Source: `Server.handle_exit` in uvicorn: a first signal ends it, SIGINT after that does not wait any longer.
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
        # What is connected in this moment would be hung up on: its request has not been read yet.
        withdraw()
        end(signal.SIGTERM, None, LINGER_SECONDS)

    signal.signal(signal.SIGTERM, on_signal)
    return Replacing(withdraw, replace)
