"""What goes on beside a test."""

import threading
from collections.abc import Callable
from typing import Self


class Beside:
    """Functions that run in a thread each, as long as a `with` statement lasts: they return once `over` is set."""

    def __init__(self, *functions: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._threads = [threading.Thread(target=function) for function in functions]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(60)
