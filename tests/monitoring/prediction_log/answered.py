"""Answered requests, made by hand, and what the log makes of them."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from serving.codecs.json import JsonDecoder
from serving.model.prepared import Manifest
from serving.model.schema import Inputs, parse_schema
from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log.encoding import Encoder, split
from serving.monitoring.prediction_log.frames import pack
from serving.monitoring.prediction_log.options import Options
from serving.monitoring.prediction_log.rows import Rows
from serving.monitoring.prediction_log.selection import Selection
from serving.monitoring.prediction_log.tables import to_table
from serving.runtime import Output
from serving.settings import Settings
from tests.support.manifests import some_manifest

MANIFEST = some_manifest()


def manifest_of(*columns: dict[str, Any], **more: Any) -> Manifest:
    return some_manifest(inputs=json.dumps([{"required": False} | column for column in columns]), **more)


def decoded(manifest: Manifest, instances: list[Any]) -> Inputs:
    """Rows as a request brings them."""
    decoder = JsonDecoder(parse_schema(manifest.inputs), 1_000_000)
    return decoder.predict(json.dumps({"instances": instances}).encode())[0]


def numbers(n_rows: int, first: int = 0) -> Inputs:
    """Rows of the manifest without columns of its own."""
    return Inputs((np.arange(first, first + n_rows, dtype=np.float64),), n_rows)


def answer(n_rows: int) -> Output:
    share = np.linspace(0.25, 0.75, n_rows)
    labels = np.where(share > 0.5, "yes", "no").astype(object)
    return Output(labels, np.column_stack([1 - share, share]))


def finished(
    inputs: Inputs,
    output: Output | None = None,
    manifest: Manifest | None = None,
    request_id: str = "r1",
    **more: Any,
) -> Finished:
    now = time.perf_counter()
    known = {
        "key": None,
        "params": {},
        "role": "champion",
        "body_bytes": 100,
        "started": now - 0.002,
        "ended": now,
    } | more
    return Finished(
        request_id=request_id,
        manifest=manifest or MANIFEST,
        inputs=inputs,
        output=output or answer(inputs.n_rows),
        **known,
    )


def message(*requests: Finished, **settings: Any) -> bytes:
    """The message for requests to one model."""
    parts = [part for request in requests for part in split(request)]
    return Encoder(requests[0].manifest, Selection.of(Settings(**settings))).encode(parts)


def logged(*requests: Finished, **settings: Any) -> pa.Table:
    return to_table(msgspec.msgpack.decode(message(*requests, **settings), type=Rows))


def frame_of(*requests: Finished) -> bytes:
    return pack(message(*requests), sum(request.inputs.n_rows for request in requests))


def options(parent: Path, **more: Any) -> Options:
    known: dict[str, Any] = {
        "run_directory": str(parent),
        "folder": str(parent / "log"),
        "file_bytes": 1e9,
        "file_seconds": 1e9,
        "keep_bytes": 1e9,
        "keep_seconds": 30 * 86_400,
        "log_format": "text",
    }
    return Options(**known | more)
