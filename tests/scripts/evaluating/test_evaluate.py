"""`scripts/evaluate.py`: joins, metrics by version, role and slice, estimates, the plot."""

import datetime as dt
import json
import shutil
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn_metrics

from scripts.compare import main as compare
from scripts.evaluate import main
from serving.monitoring.feedback.answers import answers_of
from serving.monitoring.feedback.store import KeyTruth, Truth, open_store
from serving.monitoring.prediction_log import converter
from serving.monitoring.prediction_log.journal import Journal
from serving.monitoring.prediction_log.rows import Rows
from tests.monitoring.prediction_log.answered import finished, frame_of, message, numbers, options
from tests.support.manifests import some_manifest
from tests.support.prediction_log import make_log, write_log, write_truths


@pytest.fixture
def evaluate(capsys):
    def run(*arguments, code=0, script=main):
        assert script([*map(str, arguments), "--json"]) == code
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return run


def sklearn_scores(rows: pd.DataFrame) -> dict[str, float]:
    truth = rows["churned"] == "yes"
    return {
        "accuracy": sklearn_metrics.accuracy_score(truth, rows["label"] == "yes"),
        "roc_auc": sklearn_metrics.roc_auc_score(truth, rows["score"]),
        "log_loss": sklearn_metrics.log_loss(truth, rows["score"]),
    }


def test_the_log_and_truths_by_version_role_and_slice(tmp_path, evaluate):
    champion, shadow = make_log(seed=1), make_log(version=8, role="shadow", skill=0.3, seed=1)
    log = write_log(tmp_path / "log", pd.concat([champion, shadow]))
    truths = write_truths(tmp_path / "truths.csv", champion)
    found = evaluate(log, "--truth", truths, "--target", "churned", "--by", "region")["groups"]
    assert [(of["version"], of["role"], of["labels"]) for of in found] == [
        ("7", "champion", 2_000),
        ("8", "shadow", 2_000),
    ]
    for of, rows in zip(found, (champion, shadow), strict=True):
        assert of["metrics"] == pytest.approx(of["metrics"] | sklearn_scores(rows))
        slices = {part["slice"]: part for part in of["slices"]}
        assert set(slices) == {"region = east", "region = west"}
        east = rows[rows["region"] == "east"]
        assert slices["region = east"]["labels"] == len(east)
        assert slices["region = east"]["metrics"]["roc_auc"] == pytest.approx(sklearn_scores(east)["roc_auc"])
        assert of["estimate"] is None
        report = sklearn_metrics.classification_report(rows["churned"], rows["label"], output_dict=True)
        assert of["classes"]["yes"]["precision"] == pytest.approx(report["yes"]["precision"])


def test_rows_without_truth_get_an_estimate_that_is_checked(tmp_path, evaluate):
    rows = make_log(6_000)
    log = write_log(tmp_path / "log", rows)
    truths = write_truths(tmp_path / "truths.csv", rows[:4_000])
    (found,) = evaluate(log, "--truth", truths, "--target", "churned")["groups"]
    assert found["labels"] == 4_000
    estimate = found["estimate"]
    truth = (rows["label"] == rows["churned"])[4_000:].mean()
    assert abs(estimate["accuracy"] - truth) < 3 * estimate["standard_error"] < 0.05
    assert (estimate["rows"], estimate["labels"], estimate["check"]["has_held"]) == (2_000, 4_000, True)


def test_a_model_that_has_become_worse_shows_that_its_estimate_does_not_hold(tmp_path, capsys):
    rows = make_log(3_000)
    random = np.random.default_rng(1)
    recent = rows.index >= 1_500
    rows.loc[recent, "churned"] = random.choice(["no", "yes"], 1_500)
    rows.loc[rows.index >= 2_500, "churned"] = None
    rows.to_csv(tmp_path / "rows.csv", index=False)
    assert main([str(tmp_path / "rows.csv"), "--target", "churned"]) == 0
    assert "it did not hold, so do not rely on it" in capsys.readouterr().out


def test_one_file_with_other_names_and_no_versions(tmp_path, evaluate):
    rows = make_log()[["label", "score", "churned"]]
    rows = rows.assign(label=rows["label"] == "yes", churned=(rows["churned"] == "yes").astype(int))
    rows["churned"] = rows["churned"].map({0: "False", 1: "True"})
    rows.columns = ["answer", "p", "really"]
    rows.to_csv(tmp_path / "rows.csv", index=False, sep=";")
    (found,) = evaluate(tmp_path / "rows.csv", "--target", "really", "--label", "answer", "--score", "p")[
        "groups"
    ]
    assert (found["version"], found["role"], found["labels"]) == (None, None, 2_000)
    assert found["metrics"] == pytest.approx(found["metrics"] | sklearn_scores(make_log()))


def test_a_regression(tmp_path, evaluate):
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"key": range(100), "value": random.normal(size=100), "model_version": 3})
    truths = pd.DataFrame({"key": range(150), "paid": np.append(rows["value"] + 0.5, np.zeros(50))})
    rows.to_parquet(tmp_path / "rows.parquet")
    truths.to_csv(tmp_path / "truths.csv", index=False)
    found = evaluate(tmp_path / "rows.parquet", "--truth", tmp_path / "truths.csv", "--target", "paid")
    assert found["unmatched_truths"] == 50
    (group,) = found["groups"]
    assert group["metrics"] == pytest.approx(
        {"rmse": 0.5, "mae": 0.5, "r2": 1 - 0.25 / rows["value"].var(ddof=0)}
    )


def test_more_than_two_classes_have_their_probabilities_from_a_struct(tmp_path, evaluate):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 500)
    truths = [random.choice(3, p=row) for row in probabilities]
    table = pa.table(
        {
            "label": probabilities.argmax(axis=1),
            "score": probabilities.max(axis=1),
            "probabilities": [dict(zip("012", row, strict=True)) for row in probabilities.tolist()],
            "truth": truths,
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (found,) = evaluate(tmp_path / "rows.parquet", "--target", "truth")["groups"]
    assert found["metrics"]["roc_auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(truths, probabilities, multi_class="ovr")
    )
    assert found["calibration"]["of"] == "probability of the predicted class"
    # Without them, the score is still the probability of the predicted class.
    pq.write_table(table.drop_columns(["probabilities"]), tmp_path / "scores.parquet")
    (without,) = evaluate(tmp_path / "scores.parquet", "--target", "truth")["groups"]
    assert "log_loss" not in without["metrics"]
    assert without["calibration"] == found["calibration"]


def test_a_score_is_understood_by_the_labels_that_it_separates(tmp_path, evaluate):
    rows = make_log(500).assign(label=lambda rows: np.where(rows["score"] >= 0.3, "yes", "no"))
    rows.loc[:1, "churned"] = "who knows"
    rows.loc[2, "score"] = None
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (found,) = evaluate(tmp_path / "rows.csv", "--target", "churned")["groups"]
    assert found["calibration"]["of"] == "probability of yes"
    assert found["metrics"]["log_loss"] == pytest.approx(sklearn_scores(rows[3:])["log_loss"])
    assert found["metrics"]["accuracy"] == (rows["label"] == rows["churned"]).mean()


def test_rows_that_are_not_in_a_parquet_file_yet_count_too(tmp_path, evaluate):
    folder = tmp_path / "log"
    folder.mkdir()
    journal = Journal(folder)
    journal.append(frame_of(finished(numbers(3), request_id="first")))
    journal.close()
    assert converter.run(options(tmp_path), dt.date(1970, 1, 1)).trouble == ""
    journal = Journal(folder)
    journal.append(frame_of(finished(numbers(3), request_id="later")))
    journal.append(frame_of(finished(numbers(3), manifest=some_manifest(name="another"))))
    (tmp_path / "truths.csv").write_text(
        "request_id,row,truth\n"
        + "".join(f"{name},{row},yes\n" for name in ("first", "later") for row in range(3))
    )
    arguments = [folder, "--truth", tmp_path / "truths.csv", "--target", "truth", "--name", "churn"]
    (found,) = evaluate(*arguments, "--by", "date")["groups"]
    assert (found["labels"], found["metrics"]["accuracy"]) == (6, pytest.approx(2 / 6))  # no, no, yes; twice
    today = dt.datetime.now(dt.UTC).date().isoformat()
    assert [part["slice"] for part in found["slices"]] == [f"date = {today}"]
    journal.close()


def test_without_a_file_the_truth_is_the_feedback(tmp_path, evaluate, monkeypatch):
    journal = Journal(tmp_path)
    requests = [finished(numbers(3), request_id=name, key=name.encode()) for name in ("a", "b")]
    journal.append(b"".join(map(frame_of, requests)))
    journal.close()
    monkeypatch.setenv("SERVING_LOG_PREDICTIONS", str(tmp_path))
    assert "no truth for" in evaluate(tmp_path, code=2)
    monkeypatch.setenv("SERVING_FEEDBACK_STORE", "sqlite")
    assert "has a truth yet" in evaluate(tmp_path, code=2)
    with open_store("sqlite", tmp_path) as store:
        for request in requests:
            store.add_answers(answers_of(msgspec.msgpack.decode(message(request), type=Rows), ()))
        store.add_truths("churn", [Truth("a", 0, "no"), Truth("a", 1, "no")], [KeyTruth("b", "yes")])
    (found,) = evaluate(tmp_path)["groups"]  # the answers are no, no, yes; twice
    assert (found["labels"], found["metrics"]["accuracy"]) == (5, pytest.approx(3 / 5))
    assert "no predictions of role challenger or shadow" in evaluate(tmp_path, code=2, script=compare)


def test_files_that_are_still_being_written_are_not_read(tmp_path, evaluate):
    log = write_log(tmp_path / "log", make_log(100))
    (log / "model=churn" / "version=7" / "part-2.parquet.tmp").write_text("half")
    (log / "model=churn" / "version=7" / ".part-3.parquet").write_text("half")
    truths = write_truths(tmp_path / "truths.csv", make_log(100))
    (found,) = evaluate(log, "--truth", truths, "--target", "churned")["groups"]
    assert (found["version"], found["labels"]) == ("7", 100)


def test_versions_are_in_the_order_of_their_numbers(tmp_path, evaluate):
    pd.concat([make_log(10, version=version) for version in (10, 9)]).to_csv(tmp_path / "rows.csv")
    found = evaluate(tmp_path / "rows.csv", "--target", "churned")["groups"]
    assert [of["version"] for of in found] == ["9", "10"]


def test_of_a_repeated_truth_the_last_counts(tmp_path, evaluate):
    rows = pd.DataFrame({"request_id": ["a", "b"], "label": ["x", "x"]})
    truths = pd.DataFrame({"request_id": ["a", "b", "a"], "truth": ["x", "x", "y"]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    truths.to_csv(tmp_path / "truths.csv", index=False)
    found = evaluate(tmp_path / "rows.csv", "--truth", tmp_path / "truths.csv", "--target", "truth")
    assert found["groups"][0]["metrics"]["accuracy"] == 0.5


def test_table(tmp_path, capsys):
    rows = make_log(100)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    assert main([str(tmp_path / "rows.csv"), "--target", "churned", "--by", "region"]) == 0
    head, whole, *slices = capsys.readouterr().out.splitlines()
    assert head.split() == (
        [
            "version",
            "role",
            "rows",
            "labels",
            "accuracy",
            "precision",
            "recall",
            "f1",
            "log_loss",
            "roc_auc",
            "calibration_error",
        ]
    )
    assert whole.split()[:6] == [
        "7",
        "champion",
        "all",
        "rows",
        "100",
        f"{sklearn_scores(rows)['accuracy']:.4g}",
    ]
    assert len(slices) == 2


def test_plot_is_valid_svg_whatever_the_names(tmp_path, capsys):
    rows = make_log().assign(version="<script>alert(1)</script>&")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    plot = tmp_path / "plot.svg"
    assert main([str(tmp_path / "rows.csv"), "--target", "churned", "--plot", str(plot)]) == 0
    root = ET.fromstring(plot.read_text())
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert {"polyline", "circle"} < tags
    assert not tags & {"script", "image", "foreignObject"}
    dots = [of for of in root.iter() if of.tag.endswith("circle") and len(of)]
    assert len(dots) == 10
    for dot in dots:  # the model is calibrated: dots are near the diagonal
        x, y = (float(dot.get("cx")) - 56) / 360, 1 - (float(dot.get("cy")) - 24) / 360
        assert x == pytest.approx(y, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no truth for rows.csv: name its column with --target"),
        (["--truth", "rows.csv"], "--truth needs --target"),
        (["--target", "churn"], "no column 'churn' (did you mean 'churned'?)"),
        (["--target", "churned", "--by", "regio"], "no column 'regio' (did you mean 'region'?)"),
        (["--target", "region"], "no truth (east, west) is a label of the predictions (no, yes)"),
        (["--target", "empty"], "no prediction in rows.csv has a truth in 'empty'"),
        (["--target", "churned", "--label", "l"], "no column 'l'"),
        (["--target", "churned", "--score", "empty", "--plot", "p.svg"], "--plot needs probabilities"),
        (["--target", "churned", "--score", "region"], "expected numbers in 'region'"),
        (["--target", "churned", "--score", "s"], "no column 's'"),
        (["--target", "churned", "--label", "empty"], "no predictions in the column 'empty'"),
        (
            ["--target", "t", "--truth", "rows.csv", "--on", "kei"],
            "rows.csv: no column 'kei' (did you mean 'key'?)",
        ),
        (
            ["--target", "t", "--truth", "models"],
            "models has several models; choose one with --name: a, churn",
        ),
        (["--target", "churned", "--plot", "no/p.svg"], "no/p.svg: No such file or directory"),
        (
            ["--target", "churned", "--label", "empty", "--value", "region"],
            "expected numbers in the truths",
        ),
        (["--target", "churned", "--truth", "none.csv"], "none.csv: No such file or directory"),
        (["--target", "t", "--truth", "bare.csv"], "name the column to join by with --on"),
        (
            ["--target", "t", "--truth", "requests.csv"],
            "requests.csv needs the column 'row' beside request_id",
        ),
        (["--target", "t", "--truth", "text.parquet"], "text.parquet: not Parquet that can be read"),
        (["--target", "t", "--truth", "folder"], "folder: the folder has no Parquet file"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_log(100).assign(empty=None).to_csv("rows.csv", index=False)
    (tmp_path / "bare.csv").write_text("t\nyes\n")
    (tmp_path / "requests.csv").write_text("request_id,t\nrequest-0,yes\n")
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "folder").mkdir()
    log = write_log(tmp_path / "models", make_log(10))
    shutil.copytree(log / "model=churn", log / "model=a")
    assert main(["rows.csv", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("evaluate.py: ")
    assert message in said.err
    assert said.err.count("\n") == 1
