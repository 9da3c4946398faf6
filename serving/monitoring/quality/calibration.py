"""Whether a probability of 0.8 is right in 80 % of the rows."""

from typing import NamedTuple

import numpy as np

from serving.monitoring.quality.answers import Classified, Floats, Mask

N_BINS = 10


class Bin(NamedTuple):
    """Rows whose probabilities lie in one tenth of 0 to 1."""

    low: float
    high: float
    n_rows: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share of rows in which it came true."""


class Calibration(NamedTuple):
    """The bins that have rows."""

    what: str
    """What the probabilities are of."""
    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of predicted and observed, weighted by rows.

        Source: Naeini, Cooper, Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.
        """
        total = sum(part.n_rows for part in self.bins)
        return sum(part.n_rows * abs(part.predicted - part.observed) for part in self.bins) / total


def calibrate(answers: Classified) -> Calibration | None:
    """Returns the calibration of a binary classifier's second class, or of another one's predicted class.

    None if no row has a probability.
    """
    if answers.n_known == 2 and answers.probabilities is not None:
        scores = answers.probabilities[:, 1]
        what, came_true = f"probability of {answers.classes[1]}", answers.truths == 1
    elif answers.confidences is not None:
        scores, what, came_true = answers.confidences, "probability of the predicted class", answers.are_right
    else:
        return None
    usable = ~np.isnan(scores)
    return Calibration(what, to_bins(scores[usable], came_true[usable])) if usable.any() else None


def to_bins(scores: Floats, came_true: Mask) -> tuple[Bin, ...]:
    """Returns ten bins of equal width; each contains its upper bound, the first also 0."""
    positions = np.clip(np.ceil(scores * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
    return tuple(
        Bin(
            position / N_BINS,
            (position + 1) / N_BINS,
            int(inside.sum()),
            float(scores[inside].mean()),
            float(came_true[inside].mean()),
        )
        for position in range(N_BINS)
        if (inside := positions == position).any()
    )
