"""Two sides of a canary that show what they have counted, and traffic that goes to them by weight."""

import threading
from collections.abc import Callable
from typing import Self

from tests.support.prometheus import Pod

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class Side:
    """How the pods of one side answer."""

    def __init__(
        self, *, failing: float = 0.0, seconds: float = 0.002, first_class: float | None = 0.7
    ) -> None:
        """Takes parts of requests.

        Args:
            failing: of all requests, that fail.
            seconds: that an answer takes.
            first_class: of the rows, that are of the class `no`; None of a regressor.
        """
        self.failing, self.seconds, self.first_class = failing, seconds, first_class
        self.pod = Pod()
        self._counted: dict[str, float] = {'model_info{model="wine",version="1"}': 1.0}

    def answer(self, n: float) -> None:
        """Takes so many requests more."""
        answered = (1 - self.failing) * n
        labels = 'model="wine",version="1",role="champion"'
        bucket = f"model_prediction_latency_seconds_bucket{{{labels}"
        for bound in BOUNDS:
            self._count(f'{bucket},le="{bound}"}}', answered if self.seconds <= bound else 0)
        self._count(f'{bucket},le="+Inf"}}', answered)
        if self.failing:
            self._count(f'model_prediction_errors_total{{{labels},type="internal_error"}}', self.failing * n)
        if self.first_class is not None:
            for each, part in (("no", self.first_class), ("yes", 1 - self.first_class)):
                self._count(
                    f'model_predicted_class_total{{{labels},predicted_class="{each}"}}', part * answered
                )
        self.pod.show_lines(self._counted)

    def begin_anew(self) -> None:
        """Its process ends, and another one begins to count."""
        self._counted = dict.fromkeys(self._counted, 0.0) | {'model_info{model="wine",version="1"}': 1.0}

    def _count(self, line: str, n: float) -> None:
        self._counted[line] = self._counted.get(line, 0) + n


class Traffic:
    """Requests, from the beginning to the end of a `with` statement."""

    def __init__(self, stable: Side, canary: Side, percent: Callable[[], float], rate: float = 8000) -> None:
        """Takes both sides.

        Args:
            stable: the one.
            canary: the other.
            percent: of the requests that the canary gets at the moment.
            rate: requests a second, of both together.
        """
        self._sides = (stable, canary)
        self._percent = percent
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fire)

    def __enter__(self) -> Self:
        for side in self._sides:
            side.answer(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _fire(self) -> None:
        stable, canary = self._sides
        while not self._stop.wait(0.02):
            part = self._percent() / 100
            canary.answer(self._rate * 0.02 * part)
            stable.answer(self._rate * 0.02 * (1 - part))
