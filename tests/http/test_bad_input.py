"""Every kind of bad input: refused in the form of errors, with what is wrong and without the caller's values."""

import gzip
import json
import pickle
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pyarrow as pa
import pytest

from tests.http.in_process import Application, running_application
from tests.http.messages import ARROW, NPY, SECRET, arrow, npy, refused
from tests.support.models import frame


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    limits = {"SERVING_MAX_BODY_MB": "1", "SERVING_MAX_ROWS": "1000"}
    with running_application(tmp_path_factory.mktemp("worker"), registry_uri, "cancer", **limits) as running:
        yield running


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return frame("cancer").to_dict("records")


def post(
    service: Application, body: Any, path: str = "/v1/predict", media: str = "application/json"
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.post(path, content=content, headers={"content-type": media})


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
@pytest.mark.parametrize("body", [b"", b"  \n "])
def test_empty_body(service: Application, path: str, body: bytes) -> None:
    assert "empty" in refused(post(service, body, path), 400, "malformed_body")["message"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
@pytest.mark.parametrize(
    "body", [b"{", b'{"instances": [', b"\xff\xfe", b"[" * 5000, b'{"a": 1,}', b"tenure=1"]
)
def test_broken_json(service: Application, path: str, body: bytes) -> None:
    refused(post(service, body, path), 400, "malformed_body")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1"])
def test_json_is_utf_8(service: Application, rows: Any, path: str, encoding: str) -> None:
    """Source: RFC 8259, section 8.1."""
    instances = [{**rows[0], "mean area": "ä"}] if encoding == "latin-1" else rows[:1]
    body = json.dumps({"instances": instances}, ensure_ascii=False).encode(encoding)
    refused(post(service, body, path), 400, "malformed_body")


def test_a_byte_order_mark_is_no_harm(service: Application, rows: Any) -> None:
    body = json.dumps({"instances": rows[:1]})
    marked, plain = (post(service, body.encode(encoding)).json() for encoding in ("utf-8-sig", "utf-8"))
    assert marked["predictions"] == plain["predictions"]


@pytest.mark.parametrize(
    "body", [[], 1, "x", None, {}, {"instances": 1}, {"instances": {"a": 1}}, {"inputs": []}]
)
def test_json_of_the_wrong_shape(service: Application, body: Any) -> None:
    assert "instances" in refused(post(service, body), 422, "invalid_input")["message"]


@pytest.mark.parametrize("body", [{}, 1, "x", None, {"instances": []}])
def test_batch_json_of_the_wrong_shape(service: Application, body: Any) -> None:
    assert (
        "array of rows" in refused(post(service, body, "/v1/predict_batch"), 422, "invalid_input")["message"]
    )


def test_no_rows(service: Application) -> None:
    refused(post(service, {"instances": []}), 422, "invalid_input")
    refused(post(service, [], "/v1/predict_batch"), 422, "invalid_input")


def test_unknown_key_beside_instances(service: Application, rows: Any) -> None:
    error = refused(post(service, {"instances": rows[:1], "signature_name": SECRET}), 422, "invalid_input")
    assert error["details"][0]["column"] == "signature_name"


def test_one_wrong_cell_among_a_thousand_rows(service: Application, rows: Any) -> None:
    many = [dict(row) for row in (rows * 2)[:1000]]
    many[617]["mean area"] = SECRET
    error = refused(post(service, {"instances": many}), 422, "invalid_input")
    (detail,) = error["details"]
    assert (detail["row"], detail["column"], detail["got"]) == (617, "mean area", "string")
    assert detail["expected"].startswith("double")


def test_missing_and_extra_column(service: Application, rows: Any) -> None:
    row = dict(rows[0])
    del row["mean area"]
    row["mean arae"] = SECRET
    details = refused(post(service, {"instances": [row]}), 422, "invalid_input")["details"]
    assert {(d["column"], d["got"]) for d in details} == {("mean arae", "string"), ("mean area", "nothing")}


@pytest.mark.parametrize(
    ("cell", "got"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ('"1"', "string"),
        ("true", "boolean"),
        ("1e999", "number too large"),
    ],
)
def test_cell_that_is_no_number(service: Application, rows: Any, cell: str, got: str) -> None:
    body = json.dumps({"instances": [{**rows[0], "mean area": "@"}]}).replace('"@"', cell).encode()
    (detail,) = refused(post(service, body), 422, "invalid_input")["details"]
    assert (detail["row"], detail["column"], detail["got"]) == (0, "mean area", got)


def test_at_most_twenty_problems_are_listed(service: Application, rows: Any) -> None:
    many = [{**row, "mean area": SECRET} for row in rows[:100]]
    assert len(refused(post(service, {"instances": many}), 422, "invalid_input")["details"]) == 20


def test_npy_of_the_wrong_width(service: Application) -> None:
    body = npy(np.zeros((2, 29)))
    error = refused(post(service, body, "/v1/predict_batch", NPY), 422, "invalid_input")
    assert "(n, 30)" in error["message"]


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_pickled_npy_is_never_unpickled(service: Application, tmp_path: Path) -> None:
    trace = tmp_path / "was-here"
    body = npy(np.array([[Bomb(trace)] * 30], dtype=object), allow_pickle=True)
    pickle.loads(pickle.dumps(Bomb(tmp_path / "proof")))
    assert (tmp_path / "proof").exists(), "the bomb does not work"
    error = refused(post(service, body, "/v1/predict_batch", NPY), 400, "malformed_body")
    assert "never unpickled" in error["message"]
    assert not trace.exists()


def test_truncated_npy_and_arrow(service: Application) -> None:
    table = frame("cancer").head(5)
    for body, media in (
        (npy(table.to_numpy()), NPY),
        (arrow(pa.Table.from_pandas(table)), ARROW),
    ):
        for length in (1, 10, len(body) // 2, len(body) - 9):
            refused(post(service, body[:length], "/v1/predict_batch", media), 400, "malformed_body")


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.bentoml+pickle", "multipart/form-data"])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
def test_wrong_content_type(service: Application, rows: Any, path: str, media: str) -> None:
    error = refused(post(service, {"instances": rows[:1]}, path, media), 415, "unsupported_media_type")
    assert "application/json" in error["message"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
def test_unknown_content_encoding(service: Application, path: str) -> None:
    response = service.post(path, content=b"[]", headers={"content-encoding": "br"})
    assert "got br" in refused(response, 415, "unsupported_media_type")["message"]
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_compressed_body(service: Application, rows: Any) -> None:
    body = json.dumps({"instances": rows[:3]}).encode()
    plain = post(service, body).json()["predictions"]
    for encoding, sent in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        assert (
            service.post("/v1/predict", content=sent, headers={"content-encoding": encoding}).json()[
                "predictions"
            ]
            == plain
        )
    bomb = gzip.compress(b" " * 2_000_000)
    response = service.post("/v1/predict", content=bomb, headers={"content-encoding": "gzip"})
    assert "1000000 bytes" in refused(response, 413, "payload_too_large")["message"]


def test_more_rows_than_the_limit(service: Application) -> None:
    thin = np.zeros((1001, 30), dtype=np.int8)
    error = refused(post(service, npy(thin), "/v1/predict_batch", NPY), 413, "payload_too_large")
    assert "1001 rows" in error["message"]
    refused(post(service, thin.tolist(), "/v1/predict_batch"), 413, "payload_too_large")
    wide = arrow(pa.table(dict.fromkeys(frame("cancer").columns, thin[:, 0])))
    media = ARROW
    refused(post(service, wide, "/v1/predict_batch", media), 413, "payload_too_large")


def test_bad_requests_do_not_disturb_good_ones(service: Application, registry: str, rows: Any) -> None:
    own = mlflow.sklearn.load_model("models:/cancer@production")
    expected = own.predict_proba(frame("cancer"))[:, 1]

    def call(position: int) -> tuple[int, Any]:
        if position % 3 == 0:
            return position, post(
                service, {"instances": [{**rows[position], "mean area": None, "x": 1}]}
            ).status_code
        answer = post(service, {"instances": [rows[position]]}).json()
        return position, answer["predictions"][0]["probabilities"]["1"]

    with ThreadPoolExecutor(16) as pool:
        for position, got in pool.map(call, range(300)):
            assert got == (422 if position % 3 == 0 else pytest.approx(expected[position], abs=1e-12))
