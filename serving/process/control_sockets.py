"""Keeps the control sockets of BentoML's process manager off the network."""

from pathlib import Path
from typing import Any

MAX_PATH_BYTES = 100
"""Of a socket's path, with a margin. Source: sun_path of unix(7), 108 bytes."""


SOCKETS = ("control", "events")


def use_unix_sockets(folder: Path) -> None:
    """Makes the process manager that this process starts next listen on Unix sockets instead of two TCP ports.

    BentoML finds free ports and binds them a moment later: if another process is faster, startup fails with
    `zmq … Address already in use`. And everybody who can reach these ports, including every user of the machine, can
    make the manager run commands. Source: bentoml._internal.utils.circus, circus.commands.addwatcher.

    Args:
        folder: private to this user; if its path is too long for a socket, the ports stay.
    """
    from bentoml._internal.utils import circus

    paths = {name: folder / name for name in SOCKETS}
    if any(len(bytes(path)) > MAX_PATH_BYTES for path in paths.values()):
        return
    start = circus.Arbiter.__init__

    def start_here(self: circus.Arbiter, *args: Any, **options: Any) -> None:
        options |= {"endpoint": f"ipc://{paths['control']}", "pubsub_endpoint": f"ipc://{paths['events']}"}
        start(self, *args, **options)

    circus.Arbiter.__init__ = start_here  # type: ignore[method-assign]  # it has no argument for them


def remove_unix_sockets(folder: Path) -> None:
    """Prevents further connections to the process manager: a model can reach whatever its worker can."""
    for name in SOCKETS:
        (folder / name).unlink(missing_ok=True)
