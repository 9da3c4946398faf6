"""`scripts/promote.py`: what cannot be done, and what does not have to be, is told, and nothing is moved."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine

from scripts import promote
from tests.support.fake_service import Run
from tests.support.promotions import Registry


def test_what_falls_short_is_not_promoted(registry: Registry, run: Run):
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.assign(kind=np.random.default_rng(0).permutation(y)).to_csv("shuffled.csv", index=False)
    code, out, _ = run(promote, "2", "--data", "shuffled.csv", "--target", "kind", "--min", "accuracy=0.9")
    assert code == 1
    assert "NOT MET" in out
    assert "stays at version 1" in out
    assert registry.aliases == {"production": "1"}
    assert not Path("audit.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["9"], "has no version 9"),
        (["2", "--name", "wnie"], "promote.py: the registry has no model 'wnie'; did you mean 'wine'?\n"),
        (["2", "--percent", "50,20"], "rising percents"),
        (["2", "--percent", "50,80", "--url", "http://127.0.0.1:1"], "ends with 100"),
        (
            ["2", "--percent", "50,100", "--when-better", "mae", "--url", "http://127.0.0.1:1"],
            "ends below 100",
        ),
        (["2", "--when-better", "mae"], "need --url"),
        (["2", "--when-better", "f1", "--url", "http://127.0.0.1:1"], "invalid choice"),
        (["2", "--confidence", "0.9"], "--confidence needs --when-better"),
        (["2", "--percent", "50,100"], "need --url"),
        (["2", "--watch", "5"], "need --url"),
        (["2", "--watch", "soon"], "expected a number, got 'soon'"),
        (["2", "--data", "x.csv"], "go together"),
        (["2", "--min", "accuracy=0.5"], "need --data and --target"),
        (["2", "--by", "alcohol"], "need --data and --target"),
        (["2", "--url", "http://127.0.0.1:1"], "no service answers at http://127.0.0.1:1"),
        (["2", "--prometheus", "http://127.0.0.1:9"], "--prometheus needs --watch or --percent"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    registry: Registry, run: Run, arguments: list[str], part: str
):
    code, out, err = run(promote, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert registry.aliases == {"production": "1"}


def test_a_misspelt_alias_is_suspected_before_it_is_made(registry: Registry, run: Run):
    code, out, _ = run(promote, "2", "--alias", "productoin", "--dry-run")
    assert code == 0
    assert "from no version to 2 (no version has this alias; did you mean 'production'?)" in out
    assert "did you mean" not in run(promote, "2", "--alias", "staging", "--dry-run")[1]
