"""The end of a worker: not ready at once, answering for a while, then what is in flight, and no longer."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

LINGER_SECONDS = 1.0
"""In which a connection that was taken last brings its request."""


def end_gracefully(
    begin: Callable[[], None], drain_seconds: float, shutdown_seconds: float
) -> Callable[[], None]:
    """Puts an end in three steps in the place of the server's own at SIGTERM.

    At once `begin` is called; after `drain_seconds` the server takes no new connections and finishes what is in
    flight; `shutdown_seconds` later it is cut off. Called in the event loop's thread while the server starts.

    Returns:
        What begins the end of a worker that another one takes the place of: it takes no new connections at once, and
        has a second for those that it has taken, as no load balancer has to notice anything.

    Source: `Server.handle_exit` in uvicorn: a first signal ends it, SIGINT after that does not wait any longer.
    """
    loop = asyncio.get_running_loop()
    handle_exit = signal.getsignal(signal.SIGTERM)
    if not callable(handle_exit):  # no server runs here
        return begin
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

    def end_for_another() -> None:
        # What is connected in this moment would be hung up on: its request has not been read yet.
        for server in getattr(getattr(handle_exit, "__self__", None), "servers", ()):
            server.close()
        end(signal.SIGTERM, None, LINGER_SECONDS)

    signal.signal(signal.SIGTERM, on_signal)
    return end_for_another
