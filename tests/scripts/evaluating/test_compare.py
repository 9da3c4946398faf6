"""`scripts/compare.py`: finds the two versions, pairs their rows, and exits with the verdict."""

import json

import numpy as np
import pandas as pd
import pytest

from scripts.compare import main
from tests.support.prediction_log import make_log, write_log, write_truths


@pytest.fixture
def compare(capsys):
    def run(*arguments, code):
        assert main([*map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def shadowed(tmp_path):
    """A log in which a better shadow answered the same rows."""
    rows = make_log(4_000, skill=0.3)
    log = write_log(tmp_path / "log", pd.concat([rows, make_log(4_000, version=8, role="shadow")]))
    return [log, "--truth", write_truths(tmp_path / "truths.csv", rows), "--target", "churned"]


def test_a_better_shadow_is_compared_in_pairs(shadowed, compare):
    found = compare(*shadowed, code=0)
    rows, others = make_log(4_000, skill=0.3), make_log(4_000, version=8)
    accuracies = [float((of["label"] == rows["churned"]).mean()) for of in (rows, others)]
    assert found["paired_by"] == ["request_id", "row"]
    assert (found["champion"], found["challenger"]) == ("version 7 champion", "version 8 shadow")
    assert [found["champion_mean"], found["challenger_mean"]] == pytest.approx(accuracies)
    assert found["difference"] == pytest.approx(accuracies[1] - accuracies[0])
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert (found["verdict"], found["more_labels"]) == ("better", 0)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_the_same_versions_the_other_way_round_are_worse(shadowed, metric, compare):
    found = compare(*shadowed, "--champion", "8", "--challenger", "7", "--metric", metric, code=3)
    assert found["verdict"] == "worse"
    assert (found["difference"] < 0) == (metric == "accuracy")


def test_a_share_of_the_traffic_is_compared_in_groups(tmp_path, compare):
    challenger = make_log(1_500, version=8, role="challenger", seed=5).assign(
        time=pd.date_range("2026-01-01", periods=1_500, freq="2s", tz="UTC")
    )
    rows = pd.concat([make_log(2_999, skill=0.2), challenger])
    rows.assign(request_id=range(4_499)).to_csv(tmp_path / "rows.csv", index=False)
    found = compare(tmp_path / "rows.csv", "--target", "churned", code=0)
    assert found["paired_by"] == []
    assert (found["champion_labels"], found["challenger_labels"]) == (2_999, 1_500)


def test_of_many_rows_with_the_same_key_the_last_counts(tmp_path, compare):
    rows = pd.concat([make_log(300), make_log(300, version=8, role="challenger", seed=1)])
    rows["key"] = rows["key"] + rows["role"]
    again = rows.assign(label="no", churned="yes")
    pd.concat([again, rows]).to_csv(tmp_path / "rows.csv", index=False)
    found = compare(tmp_path / "rows.csv", "--target", "churned", "--on", "key", code=1)
    assert (found["champion_labels"], found["challenger_labels"]) == (300, 300)
    assert found["champion_mean"] == pytest.approx(
        (rows["label"] == rows["churned"])[rows["role"] == "champion"].mean()
    )


def test_rows_from_before_the_challenger_do_not_count(tmp_path, compare):
    """The truth was easier to predict then."""
    easy = make_log(2_000).assign(label=lambda rows: rows["churned"])
    later = pd.Timedelta(days=1)
    champion, challenger = (
        make_log(1_000, version=version, role=role, seed=version).assign(
            time=lambda rows: rows["time"] + later, request_id=None
        )
        for version, role in ((7, "champion"), (8, "challenger"))
    )
    pd.concat([easy.assign(request_id=None), champion, challenger]).to_csv(tmp_path / "rows.csv", index=False)
    found = compare(tmp_path / "rows.csv", "--target", "churned", code=1)
    assert (found["champion_labels"], found["challenger_labels"]) == (1_000, 1_000)
    assert found["champion_mean"] == pytest.approx((champion["label"] == champion["churned"]).mean())


def test_a_version_that_was_the_challenger_before_is_compared_in_its_role(tmp_path, compare):
    rows = [
        make_log(300, version=v, role=role, seed=v)
        for v, role in ((8, "challenger"), (8, "champion"), (9, "shadow"))
    ]
    pd.concat(rows).to_csv(tmp_path / "rows.csv", index=False)
    found = compare(tmp_path / "rows.csv", "--target", "churned", "--champion", "8", code=1)
    assert (found["champion"], found["challenger"]) == ("version 8 champion", "version 9 shadow")


def test_equal_versions_are_not_clear(tmp_path, compare, capsys):
    for seed in (1, 2):
        make_log(500, seed=seed).drop(columns=["request_id", "key"]).to_csv(
            tmp_path / f"{seed}.csv", index=False
        )
    files = [tmp_path / "1.csv", tmp_path / "2.csv"]
    found = compare(*files, "--target", "churned", code=1)
    assert found["verdict"] == "not yet"
    assert found["low"] < 0 < found["high"]
    assert found["more_labels"] > 1_000
    assert main([*map(str, files), "--target", "churned"]) == 1
    assert f"about {found['more_labels']:,} more labels make it clear" in capsys.readouterr().out


def test_two_files_of_a_regression_are_paired_by_a_named_column(tmp_path, compare):
    random = np.random.default_rng(0)
    truths = pd.DataFrame({"order": range(300), "paid": random.normal(size=300)})
    for name, noise in (("old", 1.0), ("new", 0.5)):
        predicted = truths["paid"] + random.normal(size=300) * noise
        truths[["order"]].assign(value=predicted).sample(frac=1, random_state=0).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    truths.to_csv(tmp_path / "truths.csv", index=False)
    files = [tmp_path / "old.csv", tmp_path / "new.csv"]
    options = ["--truth", tmp_path / "truths.csv", "--target", "paid", "--on", "order"]
    found = compare(*files, *options, code=0)
    assert (found["metric"], found["paired_by"], found["champion_labels"]) == ("mae", ["order"], 300)
    assert found["champion_mean"] == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)  # of normal errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["a.csv"],
            "no predictions of role challenger or shadow; name the version with --challenger; there are: ",
        ),
        (["a.csv", "--challenger", "7"], "champion and challenger are both version 7 champion"),
        (["a.csv", "--challenger", "9"], "no predictions of version 9"),
        (["a.csv", "a.csv", "a.csv"], "expected one or two files, got 3"),
        (["a.csv", "a.csv", "--champion", "7"], "choose from one file; of two, the first is the champion's"),
        (
            ["a.csv", "a.csv", "--metric", "mae"],
            "these predictions have no mae; choose from accuracy, log_loss",
        ),
        (
            ["a.csv", "a.csv", "--metric", "log_loss", "--score", "nothing"],
            "log_loss needs the probabilities",
        ),
        (["a.csv", "a.csv", "--metric", "roc_auc"], "invalid choice: 'roc_auc'"),
        (["a.csv", "a.csv", "--confidence", "95"], "'95' is not a number from 0.5 to below 1"),
        (["a.csv", "value.csv"], "one version is a classification, the other a regression"),
        (["a.csv", "a.csv", "--on", "kei"], "a.csv: no column 'kei' (did you mean 'key'?)"),
        (["a.csv", "later.csv"], "a.csv and later.csv have no labels from the same time"),
        (["a.csv", "empty.csv"], "no prediction has a truth in 'churned'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_log(100).assign(nothing=None).to_csv("a.csv", index=False)
    make_log(100).assign(churned=None).to_csv("empty.csv", index=False)
    later = make_log(100).assign(time=lambda rows: rows["time"] + pd.Timedelta(days=1), request_id="other")
    later.to_csv("later.csv", index=False)
    (tmp_path / "value.csv").write_text("value,churned\n1.5,2\n")
    assert main([*arguments, "--target", "churned"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("compare.py: ")
    assert message in said.err
    assert said.err.count("\n") == 1
