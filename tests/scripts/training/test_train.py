"""`scripts/train.py`: run as a user runs it, and its decisions one by one."""

import contextlib
import hashlib
import io
import json
import os
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
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from preprocessing import preprocess
from scripts.train import main
from scripts.training import TrainingError
from scripts.training.churn_sample import make_churn_sample
from scripts.training.columns import column_kinds, ignored_columns, make_signature
from scripts.training.pipeline import build_pipeline, choose_task, output_column, target_for_task
from scripts.training.reference import example_rows, reference_instances
from scripts.training.registration import check_names, connect
from scripts.training.table import read_csv, split_target, to_numpy_dtypes
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
            code = main(["--data", str(TELCO), "--target", "Churn", "--name", "telco", "--promote"])
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
            (SimpleImputer(strategy="median"), numeric),
            (OneHotEncoder(), [name for name in rows if name not in numeric]),
        )
        model = make_pipeline(columns, RandomForestClassifier(random_state=0))
        split = train_test_split(rows, target, test_size=0.2, random_state=0, stratify=target)
        model.fit(split[0], split[2])
        return model.predict_proba(rows), accuracy_score(split[3], model.predict(split[1])), split

    def test_registered_model_gives_scikit_learns_own_numbers_on_all_raw_rows(self, answers, by_hand):
        assert answers["classes"] == ["No", "Yes"]
        assert len(answers["probabilities"]) == 7043
        np.testing.assert_allclose(answers["probabilities"], by_hand[0], rtol=0, atol=1e-12)

    def test_predictions_are_the_labels_of_the_file(self, answers, by_hand):
        expected = np.array(["No", "Yes"])[by_hand[0].argmax(axis=1)]
        assert answers["predictions"] == expected.tolist()

    def test_identifier_can_be_left_out_without_changing_a_number(self, answers):
        assert answers["without_first_column"] == answers["probabilities"]

    def test_metrics_are_those_of_the_rows_held_out(self, answers, by_hand):
        probabilities, accuracy, (_, held_out, _, labels) = by_hand
        roc_auc = roc_auc_score(labels == "Yes", probabilities[held_out.index, 1])
        assert answers["metrics"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
        assert answers["metrics"]["roc_auc"] == pytest.approx(roc_auc, abs=1e-12)
        assert answers["metrics"]["baseline_accuracy"] == pytest.approx((labels == "No").mean())
        assert answers["metrics"]["accuracy"] > answers["metrics"]["baseline_accuracy"]
        assert {"f1", "log_loss"} <= answers["metrics"].keys()

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

    def test_trusted_types_are_the_hook_and_what_a_forest_needs(self, answers):
        assert answers["trusted"] == ["numpy.dtype", "preprocessing.preprocess", "sklearn.tree._tree.Tree"]

    def test_reference_sample_is_1000_raw_rows_of_the_training_part(self, answers, by_hand):
        instances = answers["reference"]["instances"]
        raw = pd.read_csv(TELCO).drop(columns=["customerID", "Churn"])
        training = {tuple(row) for row in raw.loc[by_hand[2][0].index].itertuples(index=False)}
        assert len(instances) == 1000
        assert list(instances[0]) == list(raw)
        assert all(tuple(row.values()) in training for row in instances)

    def test_input_example_is_five_raw_rows_without_identifiers(self, answers):
        assert len(answers["example"]["data"]) == 5
        assert answers["example"]["columns"] == list(pd.read_csv(TELCO, nrows=0))[1:-1]

    def test_terminal_tells_what_was_decided_and_what_to_type_next(self, terminal):
        text = "\n".join(terminal)
        assert "7,043 rows" in text
        assert "classification of 'Churn' (2 distinct texts)" in text
        assert "4 numeric, 15 text" in text
        assert "as identifiers: customerID" in text
        assert "telco@production is version 1" in text
        assert terminal[-1] == "next: SERVING_MODEL_NAME=telco bentoml serve"


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
        return run_train(folder, "--if-missing", "--promote", "--name", "churn")

    def test_demo_says_that_its_data_are_generated(self, first, folder):
        assert (first.returncode, first.stderr) == (0, "")
        assert "2,000 generated rows" in first.stdout
        assert "generated" in read_tags(folder, "churn")["data"]

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
        arguments = ["--data", str(csv), "--target", "price", "--name", "prices", "--model", "linear"]

        assert main([*arguments, "--promote"]) == 0

        said = capsys.readouterr().out
        assert "left out: 10 rows without a value in 'price'" in said
        assert "regression of 'price'" in said
        assert "as identifiers: Unnamed: 0" in said
        assert "as one value throughout: empty, constant" in said
        version = mlflow.MlflowClient().get_model_version_by_alias("prices", "production")
        metrics = mlflow.get_run(version.run_id).data.metrics
        assert metrics.keys() == {"r2", "rmse", "mae", "baseline_rmse", "baseline_mae"}
        assert metrics["rmse"] < metrics["baseline_rmse"]
        info = mlflow.models.get_model_info("models:/prices@production")
        assert [(column.name, column.type.name, column.required) for column in info.signature.inputs] == [
            ("Unnamed: 0", "long", False),
            ("flag", "boolean", True),
            ("maybe", "boolean", False),
            ("count", "double", True),
            ("plan", "string", False),
            ("empty", "string", False),
            ("constant", "string", False),
        ]
        assert [column.type.name for column in info.signature.outputs] == ["double"]
        assert info.flavors["sklearn"]["skops_trusted_types"] == ["numpy.dtype", "preprocessing.preprocess"]
        folder = Path(mlflow.artifacts.download_artifacts("models:/prices@production"))
        reference = json.loads((folder / "reference.json").read_text())
        assert list(reference["instances"][0]) == ["flag", "maybe", "count", "plan"]


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
        with pytest.raises(TrainingError, match=f"^the registry {uri} does not answer: timed out$"):
            connect(uri, 1)
        assert time.monotonic() - start < 10


TABLE = "a,b,y\n" + "".join(f"{i % 7},{'pq'[i % 2]},{'xz'[i % 3 == 0]}\n" for i in range(40))

MISTAKES = {
    "no such file": (None, ["--target", "y"], "t.csv: No such file or directory"),
    "not text": (b"\x80\x81,\xff\n1,2\n", ["--target", "y"], "t.csv: not a CSV file in UTF-8"),
    "empty file": (b"", ["--target", "y"], "t.csv: not a CSV file in UTF-8"),
    "no such column": (TABLE.encode(), ["--target", "Y"], "no column 'Y'; the columns are: a, b, y"),
    "another separator": (b"a;y\n1;2\n", ["--target", "y"], "no column 'y'; the columns are: a;y"),
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
    table = split_target(read_csv(file), "y")
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
                "unique_number": [i * 37 % 101 for i in range(n)],
                "flag": [True, False] * (n // 2),
                "maybe": pd.Series([True, None] * (n // 2), dtype="object"),
                "city": ["x", "y", None, "z"] * (n // 4),
                "same": ["k"] * n,
                "void": [None] * n,
                "once": ["k"] * (n - 1) + [None],
            }
        )
    )
    assert kinds.numeric == ["amount", "unique_number", "flag", "maybe"]
    assert kinds.text == ["city", "once"]
    assert kinds.identifiers == ["index", "id"]
    assert kinds.constant == ["same", "void"]


def test_column_that_preprocessing_reads_is_required_though_no_transformer_takes_it():
    n = 100
    days = pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d")
    inputs = pd.DataFrame({"day": days, "id": [f"c-{i}" for i in range(n)], "x": np.arange(n) % 9})

    def month(rows):
        return rows.assign(month=pd.to_datetime(rows["day"]).dt.month)

    kinds = column_kinds(month(inputs))
    assert kinds.identifiers == ["day", "id"]
    assert ignored_columns(inputs, kinds, month) == ["id"]


def test_column_that_is_neither_number_nor_text_is_refused_by_name():
    rows = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=30)})
    with pytest.raises(TrainingError, match=r"column 'day' is datetime64.* after preprocessing"):
        column_kinds(rows)


@pytest.mark.parametrize("model", ["forest", "linear"])
def test_row_with_missing_cells_gets_the_same_answer_alone_and_in_company(model):
    """A row of one null is an object column of None, in company the same null is NaN in a text column."""
    rows = make_churn_sample(300)
    target = rows.pop("churn")
    rows.loc[::5, "contract_type"] = None
    pipeline = build_pipeline(preprocess, column_kinds(rows), "classification", model).fit(rows, target)
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
    rows = read_csv(file)
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
    assert [column["required"] for column in columns.inputs.to_dict()] == [True] * 5 + [False] * 2


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
