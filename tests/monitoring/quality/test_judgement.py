"""`serving.monitoring.quality.judgement`: `/v1/quality` is judged as the rows themselves would be."""

import msgspec
import numpy as np
import pytest

from serving.monitoring.quality.comparison import Moments, compare_groups, compare_pairs
from serving.monitoring.quality.judgement import Quality, judge, to_confidence

RANDOM = np.random.default_rng(1)
ERRORS = RANDOM.exponential(2.0, 3_000), RANDOM.exponential(1.8, 3_000)
"""Absolute errors of two versions."""


def summary(values: np.ndarray) -> dict[str, float]:
    return {"n": len(values), "mean": float(values.mean()), "variance": float(values.var())}


def document(*, is_paired: bool) -> Quality:
    difference = summary(ERRORS[1] - ERRORS[0]) if is_paired else None
    mae = {"champion": summary(ERRORS[0]), "challenger": summary(ERRORS[1]), "difference": difference}
    comparison = {
        "champion": "7",
        "challenger": "8",
        "role": "shadow",
        "is_paired": is_paired,
        "confidence": 0.95,
    }
    said = {
        "model": "price",
        "windows": [],
        "comparisons": [comparison | {"metrics": {"mae": mae | {"low": None}}}],
    }
    return msgspec.json.decode(msgspec.json.encode(said), type=Quality)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("is_paired", [True, False])
def test_the_moments_are_judged_as_the_rows_are(is_paired, confidence):
    (comparison,) = document(is_paired=is_paired).of("7", "8")
    rows = [Moments.of(errors) for errors in ERRORS]
    expected = (
        compare_pairs(Moments.of(ERRORS[1] - ERRORS[0]), lower_is_better=True, confidence=confidence)
        if is_paired
        else compare_groups(*rows, lower_is_better=True, confidence=confidence)
    )
    judgement = judge(comparison, "mae", confidence)
    assert judgement.verdict == expected
    assert judgement.measured.n_labels == (3_000 if is_paired else 6_000)
    assert judgement.facts["difference"] == pytest.approx(ERRORS[1].mean() - ERRORS[0].mean())


def test_other_versions_are_not_compared():
    assert document(is_paired=True).of("8", "7") == []
    assert Quality().of("7", "8") == []


@pytest.mark.parametrize("text", ["0.49", "1", "95", "nan", "high"])
def test_a_confidence_is_a_probability(text):
    with pytest.raises(ValueError, match=text):
        to_confidence(text)
