"""Restarts workers that have ended, within a second and also in containers."""

from collections.abc import Callable
from typing import Any

CHECK_SECONDS = 1
"""Interval of the process manager's check for ended workers. BentoML's 10 are long for waiting callers."""


def replace_ended_workers(environment_of: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Makes the process manager that this process starts next replace each worker that has ended.

    In a container, BentoML does not restart workers and ends with the last one, so that their number would dwindle.
    Source: `respawn` in bentoml.serving.create_watcher, `check_delay` in bentoml._internal.utils.circus.

    Args:
        environment_of: selects the variables of this process that a worker gets.
    """
    from bentoml._internal.utils import circus

    start = circus.Arbiter.__init__

    def start_watchful(self: circus.Arbiter, watchers: Any, *args: Any, **options: Any) -> None:
        for watcher in watchers:
            watcher.respawn = True
            watcher.env = environment_of(watcher.env)
        start(self, watchers, *args, **options | {"check_delay": CHECK_SECONDS})

    circus.Arbiter.__init__ = start_watchful  # type: ignore[method-assign]  # it has no argument for them
