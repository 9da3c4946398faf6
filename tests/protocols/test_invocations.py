"""`/invocations` answers as MLflow's own scoring server, which runs beside it, except where docs/protocols.md says so."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from tests.http.in_process import Application, running_application
from tests.protocols.asking import CSV, PARQUET
from tests.support.environment import tracking
from tests.support.models import REQUIREMENTS, copy_registry, fill_registry
from tests.support.prepared import prepare_all
from tests.support.shared import once

SECRET = "zebra-4242"
"""A caller's value that no answer may repeat."""

JSON = "application/json"


class Customer(mlflow.pyfunc.PythonModel):
    """Answers with what it got, as text."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        rows = model_input.astype(object).where(model_input.notna(), None).to_numpy().tolist()
        return np.array([f"{tenure:d} {amount} {kind} {params['k']}" for tenure, amount, kind in rows])


def customer(name: str) -> Any:
    signature = ModelSignature(
        inputs=Schema([ColSpec("long", "tenure"), ColSpec("double", "amount"), ColSpec("string", "kind")]),
        params=ParamSchema([ParamSpec("k", "long", 1), ParamSpec("names", "string", ["a"], shape=(-1,))]),
    )
    example = pd.DataFrame({"tenure": [1], "amount": [2.5], "kind": ["a"]})
    return mlflow.pyfunc.log_model(
        python_model=Customer(),
        name=name,
        registered_model_name=name,
        signature=signature,
        input_example=example,
        **REQUIREMENTS,
    )


class Servers(NamedTuple):
    ours: Application
    theirs: Any

    def post(self, body: bytes, content_type: str) -> tuple[Any, Any]:
        headers = {"content-type": content_type}
        return (
            self.ours.post("/invocations", content=body, headers=headers),
            asyncio.run(self._ask_theirs(body, headers)),
        )

    async def _ask_theirs(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(self.theirs, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            return await client.post("/invocations", content=body, headers=headers)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = once("customers", lambda folder: prepare_all(fill_registry(folder, {"customer": customer})))
    uri = copy_registry(made, tmp_path_factory.mktemp("registry"))
    with tracking(uri):
        theirs = scoring_server.init(mlflow.pyfunc.load_model("models:/customer@production"))
    folder = tmp_path_factory.mktemp("worker")
    with running_application(folder, uri, "customer", SERVING_ALLOW_PICKLE="true") as ours:
        yield Servers(ours, theirs)


ROW = {"tenure": 1, "amount": 1.5, "kind": "a"}
ROWS = [ROW, {"tenure": 2, "amount": 2.5, "kind": "b"}]
COLUMNS = ["tenure", "amount", "kind"]
DATA = [[1, 1.5, "a"], [2, 2.5, "b"]]
SPLIT = {"columns": COLUMNS, "data": DATA}


def records(**cells: Any) -> dict[str, Any]:
    return {"dataframe_records": [ROW | cells]}


def split(**more: Any) -> dict[str, Any]:
    return {"dataframe_split": SPLIT | more}


def params(**more: Any) -> dict[str, Any]:
    return {"dataframe_records": [ROW], "params": more}


DOCUMENTS: dict[str, Any] = {
    "split": split(index=[0, 1]),
    "split without an index": split(),
    "split without columns": {"dataframe_split": {"data": DATA}},
    "split, shuffled": {"dataframe_split": {"columns": COLUMNS[::-1], "data": [["a", 1.5, 1]]}},
    "split with another column": {
        "dataframe_split": {"columns": [*COLUMNS, "x"], "data": [[1, 1.5, "a", 9]]}
    },
    "split without a column": {"dataframe_split": {"columns": ["kind", "amount"], "data": [["a", 1.5]]}},
    "split with another key": split(foo=1),
    "split without rows": split(data=[]),
    "split with an index of another length": split(index=[0]),
    "split with rows of another length": split(data=[[1, 1.5]]),
    "split as a list": {"dataframe_split": [1]},
    "records": {"dataframe_records": ROWS},
    "records without rows": {"dataframe_records": []},
    "records as an object": {"dataframe_records": ROW},
    "records, one of which has no text": {"dataframe_records": [ROW, {"tenure": 2, "amount": 2.5}]},
    "records, one of which has no number": {"dataframe_records": [ROW, {"tenure": 2, "kind": "b"}]},
    "instances of objects": {"instances": ROWS},
    "instances of lists": {"instances": DATA},
    "inputs of columns": {"inputs": {"tenure": [1, 2], "amount": [1.5, 2.5], "kind": ["a", "b"]}},
    "inputs of scalars": {"inputs": ROW},
    "inputs of objects": {"inputs": ROWS},
    "inputs of lists": {"inputs": DATA},
    "inputs of columns of different lengths": {
        "inputs": {"tenure": [1, 2], "amount": [1.5], "kind": ["a", "b"]}
    },
    "two forms": {"inputs": ROWS, "instances": ROWS},
    "no form": {"rows": ROWS},
    "an unknown key": {"dataframe_records": ROWS, "foo": 1},
    "client_request_id": {"dataframe_records": ROWS, "client_request_id": "x"},
    "signature_name": {"dataframe_records": ROWS, "signature_name": "x"},
    "messages": {"messages": [{"role": "user", "content": "x"}]},
    "a list": ROWS,
    "a number": 5,
    "text": "x",
    "1.0 for a long": records(tenure=1.0),
    "1.5 for a long": records(tenure=1.5),
    "text of a number for a long": records(tenure="1"),
    "text for a long": records(tenure=SECRET),
    "an integer for a double": records(amount=2),
    "text of a number for a double": records(amount="2.5"),
    "true for a double": records(amount=True),
    "a number for text": records(kind=5),
    "null for a long": records(tenure=None),
    "null for a double": records(amount=None),
    "null for text": records(kind=None),
    "text like an address": records(kind="https://example.com/?a=1,2"),
    "text of digits": records(kind="95120"),
    "no parameters": params(),
    "a parameter": params(k=2),
    "text for a parameter": params(k="2"),
    "a float for a parameter": params(k=2.5),
    "a list for a parameter": params(names=["x", "y"]),
    "a scalar for a list": params(names="x"),
    "an unknown parameter": params(foo=1),
    "parameters that are no object": {"dataframe_records": [ROW], "params": [1]},
}

CSV_BODY = "tenure,amount,kind\n1,1.5,a\n2,2.5,b\n"

BODIES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"this is,,,, not valid json", JSON),
    "an empty body": (b"", JSON),
    "no UTF-8": (b"\xff\xfe{}", JSON),
    "NaN for a double": (b'{"dataframe_records": [{"tenure": 1, "amount": NaN, "kind": "a"}]}', JSON),
    "NaN for a long": (b'{"dataframe_records": [{"tenure": NaN, "amount": 1, "kind": "a"}]}', JSON),
    "Infinity": (b'{"dataframe_records": [{"tenure": 1, "amount": Infinity, "kind": "a"}]}', JSON),
    "charset=UTF-8": (json.dumps(split()).encode(), f"{JSON}; charset=UTF-8"),
    "charset=latin1": (json.dumps(split()).encode(), f"{JSON}; charset=latin1"),
    "format=pandas-split": (json.dumps(split()).encode(), f"{JSON}; format=pandas-split"),
    "an unknown media type": (json.dumps(split()).encode(), "text/plain"),
    "a media type in capitals": (json.dumps(split()).encode(), "Application/JSON"),
    "CSV": (CSV_BODY.encode(), CSV),
    "CSV with charset": (CSV_BODY.encode(), f"{CSV}; charset=utf-8"),
    "CSV with an index": (b",tenure,amount,kind\n0,1,1.5,a\n", CSV),
    "CSV with \\r\\n": (CSV_BODY.replace("\n", "\r\n").encode(), CSV),
    "CSV with a byte order mark": (b"\xef\xbb\xbf" + CSV_BODY.encode(), CSV),
    "CSV with quotes": (b'"tenure","amount","kind"\n"1","1.5","a, ""b"""\n', CSV),
    "CSV with empty lines": (b"\ntenure,amount,kind\n\n1,1.5,a\n   \n\n2,2.5,b\n\n", CSV),
    "CSV with a line in a cell": (b'tenure,amount,kind\n1,1.5,"a\nb"\n', CSV),
    "CSV with spaces": (b"tenure,amount,kind\n 1, 1.5 , a \n", CSV),
    "CSV with a short row": (b"tenure,amount,kind\n1,1.5\n", CSV),
    "CSV with a long row below others": (b"tenure,amount,kind\n1,1.5,a\n1,1.5,a,x\n", CSV),
    "CSV without a header": (b"1,1.5,a\n2,2.5,b\n", CSV),
    "CSV of a header alone": (b"tenure,amount,kind\n", CSV),
    "an empty CSV": (b"", CSV),
    "CSV of white space": (b" \n\n", CSV),
    "CSV that is not UTF-8": (b"tenure,amount,kind\n1,2.0,\xff\n", CSV),
    "CSV without a long": (b"tenure,amount,kind\n,1.5,a\n", CSV),
    "CSV without a double": (b"tenure,amount,kind\n1,,a\n", CSV),
    "CSV without a text": (b"tenure,amount,kind\n1,1.5,\n", CSV),
    **{
        f"CSV with {word!r} for text": (f"tenure,amount,kind\n1,1.5,{word}\n".encode(), CSV)
        for word in (
            "NA",
            "null",
            "None",
            "nan",
            "NULL",
            "n/a",
            "N/A",
            "<NA>",
            "-",
            "na",
            "none",
            "#N/A",
            '"NA"',
        )
    },
    "CSV with text for a long": (f"tenure,amount,kind\n{SECRET},1.5,a\n".encode(), CSV),
    "CSV with 1.0 for a long": (b"tenure,amount,kind\n1.0,1.5,a\n", CSV),
    "CSV with 1.5 for a long": (b"tenure,amount,kind\n1.5,1.5,a\n", CSV),
    "CSV with 1_000": (b"tenure,amount,kind\n1_000,1.5,a\n", CSV),
    "CSV with an exponent": (b"tenure,amount,kind\n1,1.5e3,a\n", CSV),
    "CSV with a sign": (b"tenure,amount,kind\n+1,+.5,a\n", CSV),
    "CSV with semicolons": (b"tenure;amount;kind\n1;2.0;a\n", CSV),
    "CSV with an open quote": (b'tenure,amount,kind\n1,2.0,"a\n', CSV),
    "no Parquet": (b"PAR1 and nothing else", PARQUET),
    "Parquet": (pd.DataFrame(ROWS).to_parquet(), PARQUET),
    "Parquet, shuffled, with another column": (
        pd.DataFrame(ROWS)[COLUMNS[::-1]].assign(x=1).to_parquet(),
        PARQUET,
    ),
    "Parquet without a text": (pd.DataFrame([ROW, ROW | {"kind": None}]).to_parquet(), PARQUET),
    **{name: (json.dumps(document).encode(), JSON) for name, document in DOCUMENTS.items()},
}

DIFFERENCES: dict[str, tuple[int, int]] = {
    "1.5 for a long": (200, 400),
    "Infinity": (200, 400),
    "split without rows": (200, 400),
    "CSV of a header alone": (200, 400),
    "charset=latin1": (415, 200),
    "format=pandas-split": (415, 200),
    "a media type in capitals": (415, 200),
}
"""MLflow's status and ours; each has its row in docs/protocols.md."""


@pytest.mark.parametrize("name", BODIES)
def test_it_answers_as_mlflows_server(servers: Servers, name: str) -> None:
    ours, theirs = servers.post(*BODIES[name])
    expected = DIFFERENCES.get(name, (theirs.status_code, theirs.status_code))
    assert (theirs.status_code, ours.status_code) == expected, f"{theirs.text}\n{ours.text}"
    if ours.status_code != 200:
        assert {"error_code", "message", "request_id"} <= set(ours.json())
        assert SECRET not in ours.text
    elif theirs.status_code == 200:
        assert ours.json() == theirs.json()
