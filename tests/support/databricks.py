"""The part of a Databricks workspace that MLflow's client asks to serve a version, after MLflow's own protocol.

The workspace's registry hands out a signed URL for each file; Unity Catalog hands out a log-in at S3.
Source: mlflow/store/artifact/databricks_models_artifact_repo.py, and the `.proto` files in mlflow/protos.
"""

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.doubles import Double, Quiet

TOKEN = "dapi0123456789abcdef"


class Workspace(Double):
    """One model with one version, in both registries."""

    def __init__(self, files: Path, name: str, storage: str) -> None:
        """Takes the version's files, the model's name, and where in S3 Unity Catalog has the files."""
        super().__init__(_Handler)
        self.files = files
        self.name = name
        self.storage = storage
        self.strangers = 0
        """Requests without the token."""

    def api(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        """The answer to a request below `/api/2.0/mlflow/`."""
        return self._answers[path](query)

    @property
    def _answers(self) -> dict[str, Callable[[dict[str, str]], dict[str, Any]]]:
        catalog = "unity-catalog/"
        return {
            "registered-models/get": lambda _: {"registered_model": {"name": self.name}},
            "registered-models/search": lambda _: {"registered_models": [{"name": self.name}]},
            "model-versions/search": lambda _: {"model_versions": [self._version("Production")]},
            "model-versions/get": lambda _: {"model_version": self._version("Production")},
            "model-versions/list-artifacts": self._list,
            "model-versions/get-signed-download-uri": lambda query: {
                "signed_uri": f"{self.url}/signed/{query['path']}?signature=abc",
                "headers": [{"name": "X-Signed", "value": "yes"}],
            },
            f"{catalog}registered-models/get": lambda _: {
                "registered_model": {"name": self.name, "aliases": [{"alias": "production", "version": "3"}]}
            },
            f"{catalog}model-versions/get": lambda _: {"model_version": self._version(None)},
            f"{catalog}model-versions/search": lambda _: {"model_versions": [self._version(None)]},
            f"{catalog}model-versions/get-download-uri": lambda _: {"artifact_uri": self.storage},
            f"{catalog}model-versions/generate-temporary-credentials": lambda _: {
                "credentials": {
                    "aws_temp_credentials": {
                        "access_key_id": "temporary",
                        "secret_access_key": "secret",
                        "session_token": "session",
                    }
                }
            },
        }

    def _version(self, stage: str | None) -> dict[str, Any]:
        version = {
            "name": self.name,
            "version": "3",
            "creation_timestamp": 1_700_000_000_000,
            "last_updated_timestamp": 1_700_000_000_001,
            "source": "dbfs:/databricks/mlflow-tracking/1/2/artifacts/model",
            "run_id": "2",
        }
        return version | ({"current_stage": stage} if stage else {}) | {"status": "READY"}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        folder = self.files / query.get("path", "")
        entries = sorted(folder.iterdir()) if folder.is_dir() else [folder]
        return {
            "files": [
                {"path": str(entry.relative_to(self.files)), "is_dir": entry.is_dir()}
                | ({} if entry.is_dir() else {"file_size": entry.stat().st_size})
                for entry in entries
            ]
        }


class _Handler(Quiet):
    server: Workspace

    def do_GET(self) -> None:
        """Answers."""
        parts = urllib.parse.urlsplit(self.path)
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if parts.path.startswith("/signed/"):
            is_signed = parts.query == "signature=abc" and self.headers["X-Signed"] == "yes"
            file = self.server.files / urllib.parse.unquote(parts.path.removeprefix("/signed/"))
            self.answer(file.read_bytes() if is_signed else b"", 200 if is_signed else 403)
            return
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            # Databricks' client first asks how it logs in.
            self.server.strangers += parts.path.startswith("/api/")
            self.answer(b'{"error_code": "UNAUTHENTICATED", "message": "who?"}', 401)
            return
        try:
            found = self.server.api(
                parts.path.removeprefix("/api/2.0/mlflow/"), dict(urllib.parse.parse_qsl(parts.query))
            )
        except KeyError:
            self.answer(b'{"error_code": "ENDPOINT_NOT_FOUND", "message": "no such endpoint"}', 404)
            return
        self.answer(json.dumps(found).encode())

    do_POST = do_GET  # noqa: N815  # the name that the server calls
