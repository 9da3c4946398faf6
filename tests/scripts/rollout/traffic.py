"""Two sides of a canary that show what they have counted, and traffic that goes to them by weight."""

from collections.abc import Callable

from tests.scripts.rollout.clock import Clock
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
        self._counted: dict[str, float] = {'model_info{model_name="wine",model_version="1"}': 1.0}

    def answer(self, n: float) -> None:
        """Takes so many requests more."""
        answered = (1 - self.failing) * n
        labels = 'model_name="wine",model_version="1",role="champion"'
        bucket = f"model_prediction_latency_seconds_bucket{{{labels}"
        for bound in BOUNDS:
            self._count(f'{bucket},le="{bound}"}}', answered if self.seconds <= bound else 0)
        self._count(f'{bucket},le="+Inf"}}', answered)
        if self.failing:
            self._count(
                f'model_prediction_errors_total{{{labels},error_type="internal_error"}}', self.failing * n
            )
        if self.first_class is not None:
            for each, part in (("no", self.first_class), ("yes", 1 - self.first_class)):
                self._count(
                    f'model_predicted_class_total{{{labels},predicted_class="{each}"}}', part * answered
                )
        self.pod.show_lines(self._counted)

    def begin_anew(self) -> None:
        """Its process ends, and another one begins to count."""
        self._counted = dict.fromkeys(self._counted, 0.0) | {
            'model_info{model_name="wine",model_version="1"}': 1.0
        }

    def _count(self, line: str, n: float) -> None:
        self._counted[line] = self._counted.get(line, 0) + n


TICK_SECONDS = 0.02


def let_traffic_flow(
    clock: Clock, stable: Side, canary: Side, percent: Callable[[], float], rate: float = 8000
) -> None:
    """Lets both sides be asked from now on.

    Args:
        clock: by which time passes.
        stable: the one.
        canary: the other.
        percent: of the requests that the canary gets at the moment.
        rate: requests a second, of both together.
    """

    def tick() -> None:
        part = percent() / 100
        canary.answer(rate * TICK_SECONDS * part)
        stable.answer(rate * TICK_SECONDS * (1 - part))

    for side in (stable, canary):
        side.answer(0)
    clock.every(TICK_SECONDS, tick)
