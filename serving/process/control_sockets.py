"""The control sockets of BentoML's process manager, kept off the network."""

from pathlib import Path
from typing import Any

MAX_PATH_BYTES = 100
"""Of a socket's path, with some to spare. Source: sun_path of unix(7), 108 bytes."""


SOCKETS = ("control", "events")


def use_unix_sockets(folder: Path) -> None:
    """Lets the process manager that this process starts next listen in a folder instead of on two TCP ports.

    BentoML looks for free ports and binds them a moment later: another process that was quicker ends the start
    with `zmq … Address already in use`. And whoever reaches these ports, as each user of the machine does, may
    have the manager run commands. Source: bentoml._internal.utils.circus, circus.commands.addwatcher.

    Args:
        folder: of this user only; a path that is too long for a socket changes nothing.
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
    """Lets nobody connect to the process manager any more: what a worker can reach, its model can."""
    for name in SOCKETS:
        (folder / name).unlink(missing_ok=True)
