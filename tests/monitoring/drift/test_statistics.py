"""`serving.monitoring.drift.statistics` agrees with SciPy and NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from serving.monitoring.drift.statistics import (
    chi_squared_limit,
    chi_squared_tail,
    false_discoveries,
    jensen_shannon,
    kolmogorov_smirnov,
    noise_factor,
    population_stability,
    shares,
    total_variation,
)

COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=25)


@given(COUNTS, st.randoms())
def test_distances_are_scipys(counts, random):
    others = counts[:]
    random.shuffle(others)
    now, reference = shares(counts), shares(others)
    assert now.sum() == pytest.approx(1)
    index = stats.entropy(now, reference) + stats.entropy(reference, now)  # Jeffreys' divergence
    assert population_stability(now, reference) == pytest.approx(index, abs=1e-12)
    assert jensen_shannon(now, reference) == pytest.approx(
        np.nan_to_num(distance.jensenshannon(now, reference)), abs=1e-7
    )
    assert total_variation(now, reference) == pytest.approx(distance.cityblock(now, reference) / 2)


@given(st.floats(0, 2_000), st.integers(1, 60))
def test_the_tail_of_chi_squared_is_scipys(value, degrees):
    assert chi_squared_tail(value, degrees) == pytest.approx(
        stats.chi2.sf(value, degrees), rel=1e-9, abs=1e-13
    )


@pytest.mark.parametrize("degrees", [1, 2, 11, 22])
def test_the_limit_of_chi_squared_is_scipys(degrees):
    assert chi_squared_limit(degrees) == pytest.approx(stats.chi2.isf(0.001, degrees))


@pytest.mark.parametrize("shift", [0, 0.05, 0.3, 5])
@pytest.mark.parametrize(("n_rows", "n_reference"), [(1000, 1000), (300, 700), (1, 40)])
def test_kolmogorov_smirnov_is_scipys(shift, n_rows, n_reference):
    random = np.random.default_rng(0)
    first = np.sort(random.normal(size=n_rows) + shift).round(1)  # with ties
    second = np.sort(random.normal(size=n_reference)).round(1)
    statistic, p_value = kolmogorov_smirnov(first, second)
    assert statistic == pytest.approx(stats.ks_2samp(first, second).statistic)
    scaled = statistic * np.sqrt(n_rows * n_reference / (n_rows + n_reference))
    assert p_value == pytest.approx(stats.kstwobign.sf(scaled), rel=1e-6, abs=1e-12)


def test_equal_distributions_exceed_the_noise_as_rarely_as_promised():
    """By simulation: of 2,000 pairs of samples of the same distribution, 0.1 % may."""
    random = np.random.default_rng(1)
    p = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    limit = chi_squared_limit(len(p) - 1) * noise_factor(2_000, 1_000)
    indices = [
        population_stability(shares(random.multinomial(2_000, p)), shares(random.multinomial(1_000, p)))
        for _ in range(2_000)
    ]
    assert np.mean(np.array(indices) > limit) < 0.005
    # It is a limit for this many rows: half of the noise is above a tenth of it.
    assert np.mean(np.array(indices) > limit / 10) > 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_false_discoveries_are_scipys(p_values):
    adjusted = stats.false_discovery_control(p_values)
    believed = false_discoveries(p_values, 0.05)
    for ours, theirs in zip(believed, adjusted, strict=True):
        assert ours == (theirs <= 0.05) or theirs == pytest.approx(0.05)
