"""`scripts/train.py`: run as a user runs it, and its decisions one by one."""

import contextlib
import hashlib
import io
import json
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from preprocessing import preprocess
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import connect
from scripts.promote import main as promote
from scripts.train import main
from scripts.training import TrainingError
from scripts.training.churn_sample import make_churn_sample
from scripts.training.columns import column_kinds, ignored_columns, make_signature
from scripts.training.pipeline import build_pipeline, choose_task, output_column, target_for_task
from scripts.training.reference import example_rows, reference_instances
from scripts.training.registration import Wishes, check_names, register
from scripts.training.table import read_csv, split_target, to_numpy_dtypes
from scripts.validate import main as validate
from serving.settings import Settings, load_settings
from tests.support.environment import ROOT, TELCO, clean_environment, free_port
from tests.support.models import fill_registry

# Run in a process of its own, which knows nothing of the project: what a registered model answers by itself.
ANSWERS = """
import json, sys
import mlflow, mlflow.sklearn, pandas as pd
name, csv, target = sys.argv[1:4]
rows = pd.read_csv(csv).drop(columns=target)
uri = f"models:/{name}@production"
model = mlflow.sklearn.load_model(uri)
version = mlflow.MlflowClient().get_model_version_by_alias(name, "production")
run = mlflow.get_run(version.run_id)
folder = mlflow.artifacts.download_artifacts(uri)
info = mlflow.models.get_model_info(uri)
answers = {
    "version": version.version,
    "tags": version.tags,
    "run_tags": run.data.tags,
    "metrics": run.data.metrics,
    "signature": info.signature.to_dict(),
    "metadata": info.metadata,
    "trusted": info.flavors["sklearn"]["skops_trusted_types"],
    "example": json.load(open(folder + "/input_example.json")),
    "reference": json.load(open(folder + "/reference.json")),
    "predictions": model.predict(rows).tolist(),
}
if hasattr(model, "predict_proba"):
    answers["classes"] = model.classes_.tolist()
    answers["probabilities"] = model.predict_proba(rows).tolist()
    answers["without_first_column"] = model.predict_proba(rows.drop(columns=rows.columns[0])).tolist()
print(json.dumps(answers))
"""


def run_python(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "SERVING_"))
    }
    env = clean | {"MLFLOW_DISABLE_TELEMETRY": "true"} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


def run_train(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_python(folder, str(ROOT / "scripts" / "train.py"), *arguments, **environment)


def load_answers(folder: Path, name: str, csv: Path, target: str) -> dict:
    done = run_python(
        folder, "-c", ANSWERS, name, str(csv), target, MLFLOW_TRACKING_URI="sqlite:///mlflow.db"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands are run, with a registry that has its tables and nothing in them."""
    made = tmp_path_factory.mktemp("project")
    with contextlib.chdir(made):  # where MLflow puts artifacts is settled by the first look at a registry
        fill_registry(made, {})
    return made


@contextlib.contextmanager
def at_registry(folder):
    """This process at the registry of a folder; afterwards at none, as MLflow sets variables itself."""
    clean = clean_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with mock.patch.dict(os.environ, clean, clear=True), contextlib.chdir(folder):
        yield
    mlflow.set_tracking_uri(None)


@pytest.mark.skipif(not TELCO.is_file(), reason=f"the Telco churn file is not at {TELCO}")
class TestTelco:
    """The command of the README on the Telco file, and what it left in the registry."""

    @pytest.fixture(scope="class")
    @classmethod
    def terminal(cls, folder):
        out, err = io.StringIO(), io.StringIO()
        with at_registry(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            arguments = ["--data", str(TELCO), "--target", "Churn", "--name", "telco", "--promote"]
            code = main([*arguments, "--estimator", "linear"])
        assert (code, err.getvalue()) == (0, "")
        return out.getvalue().splitlines()

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, folder, terminal):
        return load_answers(folder, "telco", TELCO, "Churn")

    @pytest.fixture(scope="class")
    @classmethod
    def by_hand(cls):
        """The same model, put together here from scikit-learn's parts and the file alone."""
        rows = pd.read_csv(TELCO, na_values={"TotalCharges": " "}).drop(columns="customerID")
        target = rows.pop("Churn")
        numeric = ["SeniorCitizen", "tenure", "MonthlyCharges", "TotalCharges"]
        columns = make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
            (OneHotEncoder(sparse_output=False), [name for name in rows if name not in numeric]),
        )
        model = make_pipeline(columns, LogisticRegression(max_iter=1_000))
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(rows, target))
        metrics = [
            (
                accuracy_score(target.iloc[held], fitted.predict(rows.iloc[held])),
                roc_auc_score(target.iloc[held] == "Yes", fitted.predict_proba(rows.iloc[held])[:, 1]),
            )
            for learned, held in folds
            for fitted in [clone(model).fit(rows.iloc[learned], target.iloc[learned])]
        ]
        return model.fit(rows, target).predict_proba(rows), np.array(metrics)

    def test_registered_model_gives_scikit_learns_own_numbers_on_all_raw_rows(self, answers, by_hand):
        assert answers["classes"] == ["No", "Yes"]
        assert len(answers["probabilities"]) == 7043
        np.testing.assert_allclose(answers["probabilities"], by_hand[0], rtol=0, atol=1e-12)

    def test_predictions_are_the_labels_of_the_file(self, answers, by_hand):
        expected = np.array(["No", "Yes"])[by_hand[0].argmax(axis=1)]
        assert answers["predictions"] == expected.tolist()

    def test_identifier_can_be_left_out_without_changing_a_number(self, answers):
        assert answers["without_first_column"] == answers["probabilities"]

    def test_metrics_are_those_of_a_cross_validation(self, answers, by_hand):
        found = answers["metrics"]
        (accuracy, roc_auc), (accuracy_std, roc_auc_std) = (
            by_hand[1].mean(axis=0),
            by_hand[1].std(axis=0, ddof=1),
        )
        assert found["accuracy"] == pytest.approx(accuracy, abs=1e-12)
        assert found["roc_auc"] == pytest.approx(roc_auc, abs=1e-12)
        assert found["accuracy_std"] == pytest.approx(accuracy_std, abs=1e-12)
        assert found["roc_auc_std"] == pytest.approx(roc_auc_std, abs=1e-12)
        assert found["baseline_accuracy"] == pytest.approx(5174 / 7043)  # "No" in the file
        assert {"f1", "log_loss", "f1_std", "log_loss_std"} <= found.keys()

    def test_signature_takes_the_raw_columns_and_does_not_require_the_identifier(self, answers):
        inputs = json.loads(answers["signature"]["inputs"])
        assert [column["name"] for column in inputs] == list(pd.read_csv(TELCO, nrows=0))[:-1]
        types = {column["name"]: column["type"] for column in inputs}
        assert {name for name in types if types[name] == "long"} == {"SeniorCitizen", "tenure"}
        assert {name for name in types if types[name] == "double"} == {"MonthlyCharges"}
        assert set(types.values()) == {"long", "double", "string"}
        assert [column["name"] for column in inputs if not column["required"]] == ["customerID"]
        assert json.loads(answers["signature"]["outputs"])[0]["type"] == "string"

    def test_digest_of_the_hook_travels_with_the_model(self, answers):
        digest = hashlib.sha256((ROOT / "preprocessing.py").read_bytes()).hexdigest()
        assert answers["metadata"] == {"preprocessing_sha256": digest}

    def test_trusted_types_are_the_hook_and_a_dtype(self, answers):
        assert answers["trusted"] == ["numpy.dtype", "preprocessing.preprocess"]

    def test_reference_sample_is_1000_raw_rows(self, answers):
        instances = answers["reference"]["instances"]
        raw = pd.read_csv(TELCO).drop(columns=["customerID", "Churn"])
        rows = {tuple(row) for row in raw.itertuples(index=False)}
        assert len(instances) == 1000
        assert list(instances[0]) == list(raw)
        assert all(tuple(row.values()) in rows for row in instances)

    def test_input_example_is_five_raw_rows_without_identifiers(self, answers):
        assert len(answers["example"]["data"]) == 5
        assert answers["example"]["columns"] == list(pd.read_csv(TELCO, nrows=0))[1:-1]

    def test_terminal_tells_what_was_decided_and_what_to_type_next(self, terminal):
        text = "\n".join(terminal)
        assert "7,043 rows" in text
        assert "classification of 'Churn' (2 distinct texts)" in text
        columns = {line.split()[0]: " ".join(line.split()[1:]) for line in terminal if line.startswith("  ")}
        assert len(columns) == 1 + 20 + 1  # the head, the columns, the score
        assert columns["customerID"].startswith("left out identifier: 7,043 distinct values in 7,043 rows")
        assert columns["TotalCharges"] == (
            "number numbers from 18.8 to 8684.8; text in the file and in requests, read by preprocessing.py (override: --number)"
        )
        assert columns["Contract"] == "category 3 distinct values"
        assert columns["linear"].startswith("accuracy 0.80")
        assert "telco@production is version 1" in text
        assert terminal[-3] == (
            f"callers read such a file with: pd.read_csv('{TELCO.name}', dtype={{'TotalCharges': 'str'}})"
        )
        assert "SERVING_PUBLISH_EXAMPLES=false" in terminal[-2]

    def test_next_command_works_where_the_last_one_was_typed(self, terminal, folder):
        """It is parsed as a shell would, and names a program that is there, and the database that was written."""
        assert terminal[-1].startswith("next: ")
        *variables, program, serve, project = shlex.split(terminal[-1].removeprefix("next: "))
        # This registry is named by an absolute path, so no variable repeats it.
        assert variables == ["SERVING_MODEL_NAME=telco"]
        assert os.access(program, os.X_OK)
        assert (serve, project) == ("serve", str(ROOT))


def read_tags(folder: Path, name: str) -> dict[str, str]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return dict(database.execute("SELECT key, value FROM model_version_tags WHERE name = ?", (name,)))


class TestDemo:
    """The first `make serve`, and the second."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        """Where nobody has been before: the registry is made there."""
        return tmp_path_factory.mktemp("demo")

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, folder):
        return run_train(folder, "--if-missing", "--promote", "--name", "churn", "--estimator", "forest")

    def test_demo_says_that_its_data_are_generated(self, first, folder):
        assert (first.returncode, first.stderr) == (0, "")
        assert "2,000 generated rows" in first.stdout
        assert "generated" in read_tags(folder, "churn")["data"]
        assert "SERVING_PUBLISH_EXAMPLES" not in first.stdout, "they are nobody's"

    def test_next_command_names_the_registry_of_this_folder(self, first, folder):
        *variables, _, _, _ = shlex.split(first.stdout.splitlines()[-1].removeprefix("next: "))
        assert variables == [f"MLFLOW_TRACKING_URI=sqlite:///{folder}/mlflow.db"]

    def test_second_start_registers_nothing_and_imports_no_mlflow(self, first, folder):
        script = (
            "import sys; from scripts.train import main; code = main(['--if-missing', '--promote']); "
            "sys.exit(code or 'mlflow' in sys.modules or 'pandas' in sys.modules)"
        )
        second = run_python(folder, "-c", script, PYTHONPATH=str(ROOT))
        assert second.returncode == 0, second.stdout + second.stderr
        assert second.stdout == "churn is registered already; nothing to train\n"
        with sqlite3.connect(folder / "mlflow.db") as database:
            count = "SELECT count(*) FROM model_versions WHERE name = 'churn'"
            assert database.execute(count).fetchone() == (1,)


@pytest.fixture
def own_mlflow(folder):
    """This process's MLflow at the module's registry."""
    with at_registry(folder):
        yield


class TestMixedColumns:
    """A table with every kind of column."""

    @pytest.fixture(scope="class")
    @classmethod
    def csv(cls, folder):
        n = 200
        rows = pd.DataFrame(
            {
                "flag": [i % 3 == 0 for i in range(n)],
                "maybe": [None if i % 5 == 0 else i % 2 == 0 for i in range(n)],
                "count": [None if i % 7 == 0 else i for i in range(n)],
                "plan": ["a", "b", "None", None] * (n // 4),
                "empty": [None] * n,
                "constant": ["k"] * n,
                "price": [i * 1.5 + (i % 3) / 7 for i in range(n)],
            }
        )
        rows.loc[:9, "price"] = None
        rows.to_csv(folder / "mixed.csv")
        return folder / "mixed.csv"

    def test_regression_registers_and_says_what_it_left_out(self, csv, own_mlflow, capsys):
        arguments = ["--data", str(csv), "--target", "price", "--name", "prices", "--estimator", "linear"]

        assert main([*arguments, "--promote"]) == 0

        said = capsys.readouterr().out
        assert "left out: 10 rows without a value in 'price'" in said
        assert "regression of 'price'" in said
        table = {
            line[2:14].strip(): line[14:].split(maxsplit=2) for line in said.splitlines() if line[:2] == "  "
        }
        assert table["Unnamed: 0"][:2] == ["left", "out"]
        assert table["empty"] == ["left", "out", "empty"]
        assert table["constant"] == ["left", "out", "one value throughout"]
        assert table["maybe"] == ["number", "true", "or false; requests may omit it"]
        assert table["flag"] == ["number", "true", "or false; cannot be missing in requests"]
        version = mlflow.MlflowClient().get_model_version_by_alias("prices", "production")
        metrics = mlflow.get_run(version.run_id).data.metrics
        spreads = {"r2_std", "rmse_std", "mae_std"}
        assert metrics.keys() == {"r2", "rmse", "mae", "baseline_rmse", "baseline_mae"} | spreads
        assert metrics["rmse"] < metrics["baseline_rmse"]
        info = mlflow.models.get_model_info("models:/prices@production")
        assert [(column.name, column.type.name, column.required) for column in info.signature.inputs] == [
            ("Unnamed: 0", "long", False),
            ("flag", "boolean", True),
            ("maybe", "boolean", False),
            ("count", "double", True),
            ("plan", "string", True),
            ("empty", "string", False),
            ("constant", "string", False),
        ]
        assert [column.type.name for column in info.signature.outputs] == ["double"]
        assert info.flavors["sklearn"]["skops_trusted_types"] == ["numpy.dtype", "preprocessing.preprocess"]
        folder = Path(mlflow.artifacts.download_artifacts("models:/prices@production"))
        reference = json.loads((folder / "reference.json").read_text())
        assert list(reference["instances"][0]) == ["flag", "maybe", "count", "plan"]


@pytest.fixture(scope="module")
def coins(folder):
    """A file whose target has nothing to do with its columns."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"a": random.normal(size=200), "b": random.choice(["x", "z"], 200)})
    rows.assign(y=random.choice(["heads", "tails"], 200)).to_csv(folder / "coins.csv", index=False)
    return str(folder / "coins.csv")


@pytest.mark.parametrize("task", [None, "regression"])
def test_model_that_is_no_better_than_the_baseline_is_registered_and_not_promoted(
    task, coins, own_mlflow, capsys, tmp_path
):
    arguments = ["--data", coins, "--target", "y"]
    if task:
        rows = pd.read_csv(coins)
        rows.assign(y=np.random.default_rng(1).normal(size=200)).to_csv(tmp_path / "t.csv", index=False)
        arguments[1] = str(tmp_path / "t.csv")
    name = f"coins-{task}"
    arguments += ["--name", name, "--promote", "--estimator", "linear"]

    assert main(arguments) == 1

    out, err = capsys.readouterr()
    assert err.startswith("train.py: not promoted: " + ("r2" if task else "roc_auc"))
    assert err.endswith(f"promote it anyway: {sys.executable} {ROOT}/scripts/promote.py 1 --name {name}\n")
    assert err.count("\n") == 1
    assert f"registered: {name} version 1" in out
    assert "SERVING_MODEL_VERSION=1" in out.splitlines()[-1]
    assert "production" not in mlflow.MlflowClient().get_registered_model(name).aliases

    assert main([*arguments, "--force"]) == 0
    assert mlflow.MlflowClient().get_model_version_by_alias(name, "production").version == 2


def test_model_that_refuses_requests_of_the_one_before_is_not_promoted_until_callers_know(
    own_mlflow, tmp_path, capsys
):
    rows = pd.DataFrame({"n": np.arange(200) * 37 % 101})
    rows.assign(y=rows["n"] > 50).to_csv(tmp_path / "t.csv", index=False)
    arguments = ["--data", str(tmp_path / "t.csv"), "--target", "y", "--name", "whole-only", "--promote"]
    arguments += ["--estimator", "linear"]
    assert main([*arguments, "--number", "n"]) == 0
    client = mlflow.MlflowClient()

    def promoted() -> tuple[int, str | None]:
        version = client.get_model_version_by_alias("whole-only", "production")
        return version.version, version.tags.get("serving.force")

    assert main(arguments) == 1

    assert promoted() == (1, None)
    said, _, command = capsys.readouterr().err.partition("; after telling the callers: ")
    assert said == (
        "train.py: not promoted: it rejects requests that version 1 in production accepts: column 'n' was double and "
        "is long"
    )
    program, script, *rest = shlex.split(command)
    assert (program, script) == (sys.executable, str(ROOT / "scripts/promote.py"))
    assert promote([*rest, "--audit-log", str(tmp_path / "audit.jsonl")]) == 0
    assert promoted() == (2, "true")

    assert main([*arguments, "--number", "n"]) == 0, "double takes whole numbers"
    assert main([*arguments, "--force"]) == 0
    assert promoted() == (4, "true")


def test_model_whose_labels_are_all_the_same_is_promoted_for_its_probabilities(own_mlflow, tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=2_000)
    rows = pd.DataFrame({"x": x, "fraud": random.random(2_000) < 0.02 * np.exp(x)})
    rows.to_csv(tmp_path / "t.csv", index=False)
    arguments = ["--data", str(tmp_path / "t.csv"), "--target", "fraud", "--name", "fraud", "--promote"]
    assert main([*arguments, "--estimator", "linear"]) == 0
    assert "its labels are no better than the commonest one" in capsys.readouterr().out


def test_file_as_a_spreadsheet_saves_it_becomes_a_model_of_typed_columns(own_mlflow, tmp_path, capsys):
    """Semicolons, decimal commas, postal codes, dates, texts, identifiers; some rows have no target, or no date."""
    random, n = np.random.default_rng(0), 300
    is_bad = random.random(n) < 0.5
    words = np.where(is_bad, random.choice(["late", "rude"], n), random.choice(["lovely", "clean"], n))
    rows = pd.DataFrame(
        {
            "id": range(100_001, 100_001 + n),
            "zip": [f"{code:05}" for code in random.choice([1067, 10115, 80331], n)],
            "visited": [f"{day}.{month}.2024" for day, month in random.integers(1, 13, (n, 2))],
            "review": [f"the staff was {word}, {i}" for i, word in enumerate(words)],
            "paid": [f"{paid:.2f}".replace(".", ",") for paid in random.uniform(5, 99, n)],
            "shop": random.integers(1, 9, n),
            "bad": np.where(random.random(n) < 0.05, None, np.where(is_bad, "yes", "no")),
        }
    )
    rows.loc[::50, "visited"] = "k.A."
    rows.to_csv(tmp_path / "t.csv", index=False, sep=";")

    arguments = ["--data", str(tmp_path / "t.csv"), "--target", "bad", "--name", "visits", "--promote"]
    assert main([*arguments, "--category", "shop"]) == 0

    said = capsys.readouterr().out
    assert "separated by ';', decimal comma" in said
    assert "estimator: linear" in said
    info = mlflow.models.get_model_info("models:/visits@production")
    assert [(column.name, column.type.name, column.required) for column in info.signature.inputs] == [
        ("id", "long", False),
        ("zip", "string", True),
        ("visited", "datetime", True),
        ("review", "string", True),
        ("paid", "double", True),
        ("shop", "long", True),
    ]
    pipeline = mlflow.sklearn.load_model("models:/visits@production")
    learned = {name: columns for name, _, columns in pipeline.named_steps["columns"].transformers_}
    assert learned["text"] == ["zip"]
    assert learned["codes"] == ["shop"]
    assert learned["words_0"] == ["review"]
    assert learned["numeric"][0] == "paid"
    assert {"visited_days", "visited_year_sin", "visited_week_cos"} < set(learned["numeric"])
    row = {"zip": "01067", "visited": pd.Timestamp("2024-05-01"), "paid": 9.5, "shop": 3}
    asked = pd.DataFrame([row | {"review": "the staff was rude"}, row | {"review": "all lovely"}])
    assert pipeline.predict(asked).tolist() == ["yes", "no"]
    folder = Path(mlflow.artifacts.download_artifacts("models:/visits@production"))
    reference = json.loads((folder / "reference.json").read_text())["instances"]
    assert {row["zip"] for row in reference} == {"01067", "10115", "80331"}
    assert {pd.Timestamp(row["visited"]).year for row in reference if row["visited"]} == {2024}

    # Without the code that begins with a zero, the column looks like numbers; the signature says what it is.
    recent = rows[(rows["zip"] != "01067") & rows["bad"].notna()]
    recent.to_csv(tmp_path / "recent.csv", index=False, sep=";")
    check = ["1", "--name", "visits", "--data", str(tmp_path / "recent.csv"), "--target", "bad", "--json"]
    assert validate([*check, "--min", "accuracy=0.5"]) == 0
    typed = recent.assign(
        visited=pd.to_datetime(recent["visited"], format="%d.%m.%Y", errors="coerce"),
        paid=recent["paid"].str.replace(",", ".").astype(float),
    )
    accuracy = (pipeline.predict(typed.drop(columns="bad")) == typed["bad"]).mean()
    scores = json.loads(capsys.readouterr().out)["scores"]["all rows"]
    assert scores["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(("mark", "separator"), [(".", ","), (",", ";")])
def test_odd_cells_in_a_column_of_numbers_count_as_missing_and_are_told(
    mark, separator, own_mlflow, tmp_path, capsys
):
    paid = np.random.default_rng(0).uniform(5, 99, 200).round(2)
    cells = [f"{number}".replace(".", mark) for number in paid]
    cells[20] = cells[50] = "k.A."
    rows = pd.DataFrame({"paid": cells, "code": [*["1", "2", "3"] * 65, *"ABCDE"], "y": paid > 50})
    rows.to_csv(tmp_path / "t.csv", index=False, sep=separator)
    name = f"odd-{ord(mark)}"
    arguments = ["--data", str(tmp_path / "t.csv"), "--target", "y", "--name", name, "--estimator", "linear"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert (
        "2 cells are not numbers, the first in line 22, and count as missing (override: --category)" in said
    )
    assert "code    category  8 distinct values; 5 cells are not numbers" in said
    signature = mlflow.models.get_model_info(f"models:/{name}/1").signature
    assert [(column.name, column.type.name) for column in signature.inputs] == [
        ("paid", "double"),
        ("code", "string"),
    ]
    assert main([*arguments, "--number", "paid"]) == 0
    assert main([*arguments, "--category", "paid"]) == 0
    assert mlflow.models.get_model_info(f"models:/{name}/3").signature.inputs.inputs[0].type.name == "string"


def test_whole_numbers_may_be_missing_where_it_is_said_that_they_are_numbers(own_mlflow, tmp_path, capsys):
    pd.DataFrame({"n": range(0, 300, 3), "y": [0, 1] * 50}).to_csv(tmp_path / "t.csv", index=False)
    arguments = [
        "--data",
        str(tmp_path / "t.csv"),
        "--target",
        "y",
        "--name",
        "whole",
        "--estimator",
        "linear",
    ]
    for more, kind in (([], "long"), (["--number", "n"], "double")):
        main([*arguments, *more])
        assert ("cannot be missing in requests (override: --number)" in capsys.readouterr().out) == (
            kind == "long"
        )
        version = 1 + bool(more)
        assert (
            mlflow.models.get_model_info(f"models:/whole/{version}").signature.inputs.inputs[0].type.name
            == kind
        )


def test_text_columns_and_boosting_are_refused_before_anything_is_fitted(
    folder, own_mlflow, tmp_path, capsys
):
    texts = [f"word{i % 7} and word{i % 5} number {i}" for i in range(100)]
    pd.DataFrame({"t": texts, "y": [0, 1] * 50}).to_csv(tmp_path / "t.csv", index=False)
    assert (
        main(["--data", str(tmp_path / "t.csv"), "--target", "y", "--text", "t", "--estimator", "boosting"])
        == 2
    )
    assert "--estimator boosting cannot learn from texts (t)" in capsys.readouterr().err


def test_pipeline_of_types_that_the_service_would_refuse_is_not_logged(own_mlflow):
    class Own(LinearRegression):
        pass

    pipeline = make_pipeline(Own()).fit([[0.0], [1.0]], [0.0, 1.0])
    trained = mock.Mock(pipeline=pipeline, tags={}, metrics={})
    client = connect(load_settings())
    with pytest.raises(
        TrainingError, match=r"would reject the pipeline for these types: .*Own.* SERVING_TRUSTED"
    ):
        register(client, "own", trained, Wishes("production"))
    assert client.search_model_versions("name='own'") == []


def test_registry_that_refuses_connections_is_one_line_with_its_uri(
    tmp_path, own_mlflow, monkeypatch, capsys
):
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    assert main(["--if-missing"]) == 2
    assert capsys.readouterr().err == f"train.py: the registry {uri} does not answer: Connection refused\n"


def test_registry_that_accepts_and_never_answers_is_given_up_within_seconds(own_mlflow):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(LifecycleError, match=f"^the registry {uri} does not answer: timed out$"):
            connect(Settings(MLFLOW_TRACKING_URI=uri, registry_timeout_seconds=1))
        assert time.monotonic() - start < 10


TABLE = "a,b,y\n" + "".join(f"{i % 7},{'pq'[i % 2]},{'xz'[i % 3 == 0]}\n" for i in range(40))

MISTAKES = {
    "no such file": (None, ["--target", "y"], "t.csv: No such file or directory"),
    "not text": (b"\x80\x81,\xff\n1,2\n", ["--target", "y"], "iconv -f cp1252 -t utf-8 t.csv >"),
    "empty file": (b"", ["--target", "y"], "t.csv: not a CSV file in UTF-8"),
    "no such column": (
        TABLE.encode(),
        ["--target", "Y"],
        "no column 'Y' (did you mean 'y'?); the columns are: a, b, y",
    ),
    "another separator": (
        b"a;y\n1;2\n",
        ["--target", "y", "--sep", ","],
        "no column 'y'; the columns are: a;y",
    ),
    "long separator": (
        b"a;y\n1;2\n",
        ["--target", "y", "--sep", ";;"],
        "argument --sep: ';;' is neither one character",
    ),
    "two kinds": (
        TABLE.encode(),
        ["--target", "y", "--drop", "a", "--text", "a"],
        "'a' cannot be both --text and --drop",
    ),
    "kind of nothing": (
        TABLE.encode(),
        ["--target", "y", "--drop", "c"],
        "--drop: no column 'c'; the columns are: a, b, y",
    ),
    "many columns": (
        b"charges," + b",".join(b"c%d" % n for n in range(40)) + b"\n",
        ["--target", "Chargs"],
        "no column 'Chargs' (did you mean 'charges'?); the columns are: charges, "
        + ", ".join(f"c{n}" for n in range(29))
        + ", and 11 more",
    ),
    "kind of a misspelt one": (
        TABLE.replace("a,b,y", "tenure,b,y").encode(),
        ["--target", "y", "--number", "tenur"],
        "--number: no column 'tenur' (did you mean 'tenure'?); the columns are: tenure, b, y",
    ),
    "kind of the target": (TABLE.encode(), ["--target", "y", "--drop", "y"], "--drop y: that is the target"),
    "no numbers": (TABLE.encode(), ["--target", "y", "--number", "b"], "column 'b' cannot be a number"),
    "no dates": (
        TABLE.encode(),
        ["--target", "y", "--date", "b"],
        "column 'b' cannot be a date: no cell looks like one",
    ),
    "other dates": (
        TABLE.encode(),
        ["--target", "y", "--date", "a=%Y"],
        "40 cells are not dates in the format %Y, the first in line 2: '0'",
    ),
    "nothing left": (
        TABLE.encode(),
        ["--target", "y", "--drop", "a", "b"],
        "no column is left to learn from: 'a': --drop; 'b': --drop",
    ),
    "one column": (b"y\n" + b"1\n2\n" * 20, ["--target", "y"], "'y' is the only column"),
    "few rows": (b"a,y\n1,2\n", ["--target", "y"], "1 rows with a value in 'y'; at least 20 are needed"),
    "infinite": (b"a,y\n" + b"inf,1\n2,0\n" * 10, ["--target", "y"], "column 'a' has infinite numbers"),
    "no target": (TABLE.encode(), [], "--data needs --target"),
    "unknown option": (TABLE.encode(), ["--traget", "y"], "unrecognized arguments: --traget y"),
    "bad name": (TABLE.encode(), ["--target", "y", "--name", "a/b"], "'a/b' cannot be a model's name"),
    "bad alias": (TABLE.encode(), ["--target", "y", "--promote", "--alias", "v1"], "'v1' cannot be an alias"),
}


@pytest.mark.parametrize(("content", "arguments", "line"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistake_is_one_clear_line_and_exit_code_2(content, arguments, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    if content is not None:
        Path("t.csv").write_bytes(content)

    code = main(["--data", "t.csv", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert line in error
    assert error.startswith("train.py: ")
    assert error.count("\n") == 1
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["yes", "no"] * 20, "classification"),
        ([True, False] * 20, "classification"),
        ([0, 1] * 20, "classification"),
        (list(range(20)), "classification"),
        (list(range(21)), "regression"),
        ([0.0, 1.0] * 20, "regression"),
        ([0.5, 1.25] * 20, "regression"),
    ],
)
def test_target_decides_the_task(values, task):
    assert choose_task(pd.Series(values, name="y"))[0] == task


def test_integer_classes_stay_integers_where_some_are_missing(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,y\n" + "1,0\n2,1\n3,\n" * 20)
    table = split_target(read_csv(file).rows, "y")
    assert table.n_without_target == 20
    assert table.target.dtype == "int64"
    assert choose_task(table.target)[0] == "classification"


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a"] * 20, "classification", "one class only"),
        (["a"] * 20 + ["b"], "classification", "class 'b' of 'y' has too few rows: 1"),
        ([str(i) for i in range(1001)], "classification", "1,001 classes"),
        ([0.5, 1.5] * 20, "classification", "has fractions"),
        (["a", "b"] * 20, "regression", "needs numbers"),
        ([2.5] * 20, "regression", "one value only"),
    ],
)
def test_target_that_cannot_be_learned_is_refused(values, task, message):
    with pytest.raises(TrainingError, match=message):
        target_for_task(pd.Series(values, name="y"), task)


def test_columns_are_sorted_by_what_a_model_can_do_with_them():
    n = 100
    kinds = column_kinds(
        pd.DataFrame(
            {
                "index": range(n),
                "id": [f"c-{i}" for i in range(n)],
                "amount": np.linspace(0, 1, n),
                "distinct": [i * 37 % 101 for i in range(n)],
                "flag": [True, False] * (n // 2),
                "maybe": pd.Series([True, None] * (n // 2), dtype="object"),
                "city": ["x", "y", None, "z"] * (n // 4),
                "same": ["k"] * n,
                "void": [None] * n,
                "once": ["k"] * (n - 1) + [None],
            }
        )
    )
    assert kinds.numbers == ["amount", "distinct", "flag", "maybe"]
    assert kinds.categories == ["city", "once"]
    assert kinds.left_out == ["index", "id", "same", "void"]


def test_column_that_preprocessing_reads_is_required_though_no_transformer_takes_it():
    n = 100
    days = pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d")
    inputs = pd.DataFrame({"day": days, "id": [f"c-{i}" for i in range(n)], "x": np.arange(n) % 9})

    def month(rows):
        return rows.assign(month=pd.to_datetime(rows["day"]).dt.month)

    kinds = column_kinds(month(inputs))
    assert kinds.left_out == ["day", "id"]
    assert ignored_columns(inputs, kinds, month) == ["id"]


def test_column_that_is_neither_number_nor_text_is_refused_by_name():
    rows = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=30)})
    with pytest.raises(TrainingError, match=r"column 'day' is datetime64.* after preprocessing"):
        column_kinds(rows)


@pytest.mark.parametrize("estimator", ["forest", "linear", "boosting"])
def test_row_with_missing_cells_gets_the_same_answer_alone_and_in_company(estimator):
    """A row of one null is an object column of None, in company the same null is NaN in a text column."""
    rows = make_churn_sample(300)
    target = rows.pop("churn")
    rows.loc[::5, "contract_type"] = None
    pipeline = build_pipeline(preprocess, column_kinds(rows), "classification", estimator).fit(rows, target)
    null = {"tenure": 3, "monthly_charges": 50.0, "total_charges": None, "payment_method": "mailed check"}
    null["contract_type"] = None
    whole = null | {"contract_type": "one-year", "total_charges": 150.0}

    alone = pipeline.predict_proba(pd.DataFrame([null]))
    together = pipeline.predict_proba(pd.DataFrame([null, whole]))

    # Up to the last bits, in which the products of one row and of several may differ by where they lie in memory.
    np.testing.assert_allclose(alone[0], together[0], rtol=0, atol=1e-12)
    unknown = pipeline.predict_proba(pd.DataFrame([null | {"contract_type": "never seen"}]))
    assert abs(unknown - alone).max() > 1e-6


def test_columns_may_come_in_any_order():
    rows = make_churn_sample(200)
    target = rows.pop("churn")
    pipeline = build_pipeline(preprocess, column_kinds(rows), "classification").fit(rows, target)
    np.testing.assert_array_equal(
        pipeline.predict_proba(rows), pipeline.predict_proba(rows[list(rows.columns[::-1])])
    )


def test_text_none_and_na_are_values_in_a_text_column_and_missing_in_a_numeric_one(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("text,only,number,flag\nNone,NA,1,True\nNA,None,NA,\n,NA,3,False\n")
    rows = read_csv(file).rows
    assert rows["text"].fillna("-").tolist() == ["None", "NA", "-"]
    assert rows["only"].tolist() == ["NA", "None", "NA"]
    assert rows["number"].fillna(-1).tolist() == [1, -1, 3]
    assert rows["flag"].dropna().tolist() == [True, False]


def test_nullable_dtypes_become_numpys_so_that_mlflow_keeps_the_signature():
    rows = to_numpy_dtypes(
        pd.DataFrame(
            {
                "whole": pd.array([1, 2], dtype="Int64"),
                "holes": pd.array([1, None], dtype="Int64"),
                "beyond": np.array([1, 2**63 + 1], dtype="uint64"),
                "float": pd.array([1.5, None], dtype="Float64"),
                "bool": pd.array([True, False], dtype="boolean"),
                "maybe": pd.array([True, None], dtype="boolean"),
                "text": pd.array(["a", None], dtype="string"),
            }
        )
    )
    assert rows.dtypes.astype(str).tolist() == [
        *("int64", "float64", "float64", "float64", "bool", "object", "str")
    ]
    columns = make_signature(rows, [], output_column(pd.Series([1, 2], name="y"), "classification"))
    assert [column["type"] for column in columns.inputs.to_dict()] == [
        *("long", "double", "double", "double", "boolean", "boolean", "string")
    ]
    assert [column["required"] for column in columns.inputs.to_dict()] == [True] * 5 + [False, True]


def test_reference_has_json_types_and_null_for_missing():
    rows = pd.DataFrame({"n": [1, 2], "x": [0.1, np.nan], "t": ["a", None], "b": [True, False]})
    instances = sorted(reference_instances(rows, seed=0)["instances"], key=lambda row: row["n"])
    assert json.loads(json.dumps(instances, allow_nan=False)) == [
        {"n": 1, "x": 0.1, "t": "a", "b": True},
        {"n": 2, "x": None, "t": None, "b": False},
    ]
    assert instances[0]["b"] is True


def test_example_rows_are_complete_ones_where_there_are_any():
    rows = pd.DataFrame({"x": [np.nan, 1.0, 2.0]})
    assert example_rows(rows)["x"].tolist() == [1.0, 2.0]
    assert len(example_rows(rows.iloc[:1])) == 1


def test_churn_sample_is_the_same_for_a_seed_and_has_the_promised_columns():
    sample = make_churn_sample(seed=3)
    pd.testing.assert_frame_equal(sample, make_churn_sample(seed=3))
    assert not sample.equals(make_churn_sample(seed=4))
    assert list(sample) == [
        *("tenure", "monthly_charges", "total_charges", "contract_type", "payment_method", "churn")
    ]
    assert len(sample) == 2000
    assert 0.2 < (sample["churn"] == "yes").mean() < 0.3
    assert 0 < sample["total_charges"].isna().sum() < 50
    assert sample.drop(columns="total_charges").notna().all(axis=None)


@pytest.mark.parametrize("alias", ["production", "challenger-2", "v1beta", None])
def test_ordinary_names_and_aliases_pass(alias):
    check_names("customer churn's", alias)
