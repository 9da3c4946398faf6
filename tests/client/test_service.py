"""The client and a real service over sockets: the Telco file, small limits, threads, and what the pages show."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from serving.client import AsyncClient, Client
from tests.http.telco import needs_telco, telco_registry
from tests.support.environment import ROOT, TELCO, clean_environment, tracking
from tests.support.services import Service, running_service

pytestmark = needs_telco

TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return telco_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def service(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"SERVING_MODEL_NAME": "telco", "SERVING_MAX_BODY_MB": "1", "SERVING_MAX_ROWS": "3000"}
    with running_service(tmp_path_factory.mktemp("service"), MLFLOW_TRACKING_URI=uri, **settings) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def holes() -> pd.DataFrame:
    """All rows, where a tenth of the cells that may be missing are."""
    rows = pd.read_csv(TELCO).drop(columns="Churn").set_index("customerID", drop=False)
    is_missing = np.random.default_rng(0).random(rows.shape) < 0.1
    return rows.mask(is_missing & [column not in {"SeniorCitizen", "tenure"} for column in rows.columns])


@pytest.fixture(scope="module")
def expected(uri: str, holes: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The labels by MLflow, and the model's own probabilities."""
    with tracking(uri):
        labels = mlflow.pyfunc.load_model("models:/telco@production").predict(holes)
        return list(labels), mlflow.sklearn.load_model("models:/telco@production").predict_proba(holes)


def test_all_rows_pass_small_limits(service: Service, holes: pd.DataFrame, expected: Any) -> None:
    labels, probabilities = expected
    with Client(service.url) as client:
        answer = client.predict(holes)
        batch = client.predict_batch(holes)
    assert answer.index.equals(holes.index)
    assert answer["prediction"].tolist() == labels
    got = answer[["probability_No", "probability_Yes"]]
    np.testing.assert_allclose(got, probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(batch, probabilities, rtol=0, atol=TOLERANCE)
    assert len(answer.attrs["request_ids"]) > 3


def test_threads_and_tasks_share_a_client(service: Service, holes: pd.DataFrame, expected: Any) -> None:
    with Client(service.url) as client, ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: client.predict_batch(holes[n : n + 5]), range(0, 200, 5)))
    np.testing.assert_allclose(np.concatenate(parts), expected[1][:200], rtol=0, atol=TOLERANCE)

    async def ask() -> list[pd.DataFrame]:
        async with AsyncClient(service.url) as client:
            return await asyncio.gather(*(client.predict(holes[n : n + 5]) for n in range(0, 200, 5)))

    frame = pd.concat(asyncio.run(ask()))
    np.testing.assert_allclose(frame["probability_No"], expected[1][:200, 0], rtol=0, atol=TOLERANCE)
    assert frame.index.equals(holes.index[:200])


def blocks() -> list[str]:
    """What the pages show in Python about clients."""
    pages = (ROOT / "README.md").read_text() + (ROOT / "docs" / "api.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    return [block for block in shown if "localhost:3000" in block]


def test_what_the_pages_show_runs(
    service: Service,
    holes: pd.DataFrame,
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n_rows = 1000  # TotalCharges is text in the file for a few blanks only, the first of them in row 488
    rows = holes.head(n_rows)
    rows.assign(Churn="No").to_csv(tmp_path / "customers.csv", index=False)
    monkeypatch.chdir(tmp_path)
    short, ours, bentomls = blocks()
    assert "serving.client" in ours
    assert "bentoml" in bentomls
    names: dict[str, Any] = {}
    exec(short.replace("http://localhost:3000", service.url), names)
    np.testing.assert_allclose(
        names["answer"]["probability_Yes"], expected[1][:n_rows, 1], rtol=0, atol=TOLERANCE
    )
    exec(ours.replace("http://localhost:3000", service.url), names)
    np.testing.assert_allclose(
        names["answer"]["probability_Yes"], expected[1][:n_rows, 1], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(names["array"], expected[1][:n_rows], rtol=0, atol=TOLERANCE)
    assert capsys.readouterr().out == ""
    exec(
        ours.replace("http://localhost:3000", service.url).replace('csv")', 'csv").assign(tenure="x")'), names
    )
    assert capsys.readouterr().out.startswith("0 tenure long")
    names = {"frame": rows}
    exec(bentomls.replace("http://localhost:3000", service.url), names)
    got = [one["probabilities"]["Yes"] for one in names["answer"]["predictions"]]
    np.testing.assert_allclose(got, expected[1][:n_rows, 1], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(names["array"], expected[1][:n_rows], rtol=0, atol=TOLERANCE)


ALONE = """
    import importlib, importlib.abc, json, sys
    folder, name, url = sys.argv[1:]
    sys.path.insert(0, folder)

    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name.partition(".")[0] in ("pandas", "pyarrow"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Absent())
    import httpx, numpy as np, numpy.typing
    before = set(sys.modules)
    module = importlib.import_module(name)
    added = [one for one in set(sys.modules) - before if one.partition(".")[0] not in sys.stdlib_module_names]
    rows = json.load(sys.stdin)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for row in rows:
        row["MonthlyCharges"] = np.float64("nan" if row["MonthlyCharges"] is None else row["MonthlyCharges"])
    with module.Client(url) as client:
        print(json.dumps([added, client.predict(rows), client.predict_batch(columns).tolist()]))
"""
"""A program where neither pandas nor pyarrow is installed."""


@pytest.mark.parametrize("name", ["serving.client", "model_client"])
def test_it_needs_httpx_and_numpy_only_also_as_a_copy(
    service: Service, holes: pd.DataFrame, expected: Any, tmp_path: Path, name: str
) -> None:
    folder = ROOT
    if name == "model_client":
        folder = tmp_path
        shutil.copytree(ROOT / "serving" / "client", tmp_path / name)
    rows = holes.head(20).astype(object).where(holes.head(20).notna(), None).to_dict("records")
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(ALONE), str(folder), name, service.url],
        cwd=tmp_path,
        env=clean_environment(),
        input=json.dumps(rows),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    added, predictions, batch = json.loads(done.stdout)
    assert [module for module in added if module != "serving" and not module.startswith(name)] == []
    assert [one["label"] for one in predictions] == expected[0][:20]
    np.testing.assert_allclose(batch, expected[1][:20], rtol=0, atol=TOLERANCE)
