"""Workers that have ended are started again, soon and everywhere."""

from collections.abc import Callable
from typing import Any

CHECK_SECONDS = 1
"""How often the process manager looks whether a worker has ended. BentoML's own 10 are long for callers who wait."""


def replace_ended_workers(environment_of: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Lets the process manager that this process starts next replace each worker that has ended.

    In a container BentoML leaves them away, and ends with the last: of several workers fewer and fewer would be left.
    Source: `respawn` in bentoml.serving.create_watcher, `check_delay` in bentoml._internal.utils.circus.

    Args:
        environment_of: returns the variables that a worker gets, of those that this process has.
    """
    from bentoml._internal.utils import circus

    start = circus.Arbiter.__init__

    def start_watchful(self: circus.Arbiter, watchers: Any, *args: Any, **options: Any) -> None:
        for watcher in watchers:
            watcher.respawn = True
            watcher.env = environment_of(watcher.env)
        start(self, watchers, *args, **options | {"check_delay": CHECK_SECONDS})

    circus.Arbiter.__init__ = start_watchful  # type: ignore[method-assign]  # it has no argument for them
