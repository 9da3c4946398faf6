"""The recording rules of drift agree with NumPy and SciPy, over two replicas."""

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.spatial import distance

from tests.kubernetes.queries import RULES
from tests.kubernetes.test_alerts import promtool

RANDOM = np.random.default_rng(3)

BINS = ["missing", "below", *(f"({n}, {n + 1}]" for n in range(10)), "above"]

REFERENCE_ROWS = 1000


def shares(counts):
    smoothed = counts + 0.5
    return smoothed / smoothed.sum()


REFERENCE = shares(np.array([0, 0, *[REFERENCE_ROWS // 10] * 10, 0]))


@pytest.fixture(scope="module")
def counted():
    """Rows a minute by replica and bin, of an input that has shifted."""
    weights = np.array([0.05, 0.02, *np.linspace(1, 3, 10) / 20, 0.08])
    return RANDOM.multinomial([400, 250], weights / weights.sum())


def expected(counted):
    now, hour = shares(60 * counted.sum(axis=0)), 60 * counted.sum()
    outside = counted[:, 1].sum() + counted[:, -1].sum()
    return {
        "feature_rows:increase1h": hour,
        "feature_psi:index1h": stats.entropy(now, REFERENCE) + stats.entropy(REFERENCE, now),
        "feature_psi:by_chance1h": stats.chi2.isf(0.001, len(BINS) - 1) * (1 / hour + 1 / REFERENCE_ROWS),
        "feature_js:distance1h": distance.jensenshannon(now, REFERENCE),
        "feature_total_variation:distance1h": distance.cityblock(now, REFERENCE) / 2,
        "feature_missing:ratio1h": counted[:, 0].sum() / counted.sum(),
        "feature_out_of_range:ratio1h": outside / counted.sum(),
        "feature_unknown:ratio1h": 13 / counted.sum(),
    }


def series(name, values, **labels):
    labels = {"model_name": "m", "model_version": "1", "kind": "input", "feature": "age"} | labels
    return {"series": name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}", "values": values}


def test_drift_over_two_replicas_is_scipys(counted, tmp_path):
    inputs = []
    for replica, counts in zip(("one", "two"), counted.tolist(), strict=True):
        for position, (name, n_rows) in enumerate(zip(BINS, counts, strict=True)):
            labels = {"instance": replica, "bin": name}
            inputs += [
                series("model_feature_bin_total", f"0+{n_rows}x90", **labels),
                series("model_feature_reference_share", f"{float(REFERENCE[position])!r}x90", **labels),
            ]
        limit = float(stats.chi2.isf(0.001, len(BINS) - 1))
        inputs += [
            series("model_feature_reference_rows", f"{REFERENCE_ROWS}x90", instance=replica),
            series("model_feature_chi_squared_limit", f"{limit!r}x90", instance=replica),
        ]
    inputs.append(series("model_feature_unknown_total", "0+13x90", instance="one"))
    asked = [
        {
            "expr": f"abs(sum(model_server:{name}) - {value}) < bool 1e-6",
            "eval_time": "80m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for name, value in expected(counted).items()
    ]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": asked}
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    promtool("test", "rules", "test.yaml", folder=tmp_path)
