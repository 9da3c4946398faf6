"""Finds the versions to serve without importing MLflow: in milliseconds and a few megabytes.

Reads SQLite files directly, and queries tracking servers over their REST API. All other cases (another database, an
error, a missing model) are left to `serving.prepare.registry.client`, which uses MLflow's own client and explains
errors.
"""

import contextlib
import http.client
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from serving.errors import ModelNotFound, RegistryUnreachable
from serving.prepare.registry.access import (
    WRONG_HOST,
    authorization,
    explain_page,
    explain_status,
    explain_tls,
    refused,
    tls_context,
    unreachable,
)
from serving.prepare.registry.bounded_http import ask
from serving.prepare.registry.resolution import (
    TAG_PREFIX,
    Resolved,
    Version,
    Wanted,
    in_stage,
    latest_moved,
    namesake_stage,
    resolved,
    wanted,
)
from serving.settings import Settings

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""Marks prompts, which MLflow keeps in the same tables."""

UNUSUAL = ("MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
"""With any of these set, only MLflow's own client makes the right requests."""


UNABLE = frozenset({429, 500, 502, 503, 504})
"""Temporary errors of a server or a proxy."""


CREDENTIALS = Path(".mlflow", "credentials")
"""In the home folder: a login for MLflow's client. Source: mlflow/utils/credentials.py."""


class Model(NamedTuple):
    """A registered model in the registry."""

    aliases: dict[str, str]
    tags: dict[str, str]
    versions: list[Version]


Found = TypeVar("Found")


def look_up(settings: Settings) -> Wanted | None:
    """Returns the versions to serve; None if only MLflow's own client can tell.

    Raises:
        RegistryUnreachable: the tracking server cannot be reached, or is temporarily unable to answer.
    """
    return _ask(
        settings,
        lambda: _choose(_read_database(settings.registry, settings.model_name), settings),
        lambda server: _ask_server(server, settings),
    )


def read_model(settings: Settings, name: str) -> Model | None:
    """Returns a registered model with all its versions; None if only MLflow's own client can tell.

    Raises:
        RegistryUnreachable: the tracking server cannot be reached, or is temporarily unable to answer.
    """
    found = _ask(
        settings,
        lambda: _read_database(settings.registry, name),
        lambda server: server.model(name)._replace(versions=server.versions(name)),
    )
    # An unknown model has no versions either; MLflow's client distinguishes the two.
    return found if found is not None and found.versions else None


def _ask(
    settings: Settings, read: Callable[[], Found | None], ask_server: Callable[["_Server"], Found | None]
) -> Found | None:
    if any(os.environ.get(name) for name in UNUSUAL):
        return None
    uri = settings.registry
    try:
        if uri.startswith("sqlite:///"):
            return read()
        if uri.startswith(("http://", "https://")) and not _has_credentials():
            return ask_server(_Server(settings))
    except urllib.error.HTTPError as error:
        trouble = _of_status(error, settings)
        if trouble is not None:
            raise trouble from None
    except http.client.HTTPException as error:
        raise unreachable(settings, type(error).__name__) from None
    except OSError as error:
        reason = _of_socket(error.reason if isinstance(error, urllib.error.URLError) else error)
        if reason is not None:
            raise unreachable(settings, reason) from None
    except (ValueError, LookupError, TypeError, AttributeError, sqlite3.Error, msgspec.MsgspecError):
        return None
    return None


def _of_status(error: urllib.error.HTTPError, settings: Settings) -> RegistryUnreachable | None:
    """The error for a failed request; None if the answer is MLflow's own."""
    said = ""
    with error, contextlib.suppress(OSError, http.client.HTTPException):  # interrupted, or endless
        said = error.read(1000).decode(errors="replace")
    if error.code in UNABLE:
        return unreachable(settings, f"{error.code} {error.reason}")
    if said.lstrip().startswith("{"):
        return None
    if error.code == 401 or (error.code == 403 and WRONG_HOST not in said):
        return refused(settings)
    return unreachable(settings, explain_status(error.code, error.reason, said, settings.registry))


def _of_socket(error: object) -> str | None:
    """Why the connection failed; None for other errors."""
    if isinstance(error, ssl.SSLError):
        return explain_tls(error)
    if isinstance(error, (TimeoutError, ConnectionError, socket.gaierror)):
        return error.strerror or str(error) or "it took too long"
    return None


def _has_credentials() -> bool:
    with contextlib.suppress(RuntimeError):  # no home folder
        return (Path.home() / CREDENTIALS).exists()
    return False


def refuse_missing_database(settings: Settings) -> None:
    """Rejects a mistyped path, at which MLflow would create an empty database.

    Raises:
        ModelNotFound: no such file.
    """
    uri = settings.registry
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not file.exists():
            raise ModelNotFound(
                f"there is no registry at {uri} (seen from {Path.cwd()}); register a model there "
                "or set MLFLOW_TRACKING_URI"
            )


def _choose(model: Model, settings: Settings) -> Wanted | None:
    by_number = {version.version: version for version in model.versions}
    champion = _choose_champion(model, by_number, settings)
    if champion is None:
        return None
    return wanted(champion, model.aliases, model.tags, settings, by_number.__getitem__)


def _choose_champion(model: Model, by_number: dict[str, Version], settings: Settings) -> Resolved | None:
    """Same order as `serving.prepare.registry.client.resolve`: version, stage, alias, stage named like the alias."""
    if settings.model_version is not None:
        number = str(settings.model_version)
        return resolved(by_number[number], "pinned by SERVING_MODEL_VERSION")
    if settings.model_stage is None and settings.model_alias in model.aliases:
        return resolved(by_number[model.aliases[settings.model_alias]], f"alias {settings.model_alias!r}")
    stage = settings.model_stage or namesake_stage(settings.model_alias)
    if stage is None:
        return None
    there = in_stage(model.versions, stage)
    return resolved(*latest_moved(there, stage)) if there else None


def _read_database(uri: str, name: str) -> Model:
    path = Path(urllib.parse.unquote(uri.removeprefix("sqlite:///").partition("?")[0])).resolve()
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as database:
        # One snapshot: otherwise an alias could name a version deleted meanwhile.
        database.execute("BEGIN")
        if database.execute(_IS_PROMPT, (name, PROMPT_TAG)).fetchone():
            raise LookupError
        return Model(
            {alias: str(version) for alias, version in database.execute(_ALIASES, (name,))},
            dict(database.execute(_MODEL_TAGS, (name, f"{TAG_PREFIX}%"))),
            [
                Version(*row)._replace(tags=dict(database.execute(_TAGS, (name, row[1], f"{TAG_PREFIX}%"))))
                for row in database.execute(_VERSIONS, (name,)).fetchall()
            ],
        )


_IS_PROMPT = "SELECT 1 FROM registered_model_tags WHERE workspace = 'default' AND name = ? AND key = ?"
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE workspace = 'default' AND name = ?"
_VERSIONS = """
    SELECT name, CAST(version AS TEXT), source, run_id, creation_time, last_updated_time, current_stage
    FROM model_versions WHERE workspace = 'default' AND name = ? AND current_stage <> 'Deleted_Internal'
"""
_MODEL_TAGS = (
    "SELECT key, value FROM registered_model_tags WHERE workspace = 'default' AND name = ? AND key LIKE ?"
)
_TAGS = """
    SELECT key, value FROM model_version_tags
    WHERE workspace = 'default' AND name = ? AND version = ? AND key LIKE ?
"""
"""In the order of `Version`. Source: mlflow/store/model_registry/dbmodels/models.py."""


class _Server:
    """The calls needed of MLflow's REST API. Source: its documentation, "REST API"."""

    def __init__(self, settings: Settings) -> None:
        parts = urllib.parse.urlsplit(settings.registry)
        self._base = urllib.parse.urlunsplit(
            parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        ).rstrip("/")
        self._settings = settings
        self._headers = {"Authorization": found} if (found := authorization(parts, settings)) else {}
        self._context = tls_context(settings) if parts.scheme == "https" else None

    def get(self, path: str, **query: str) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            f"{self._base}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}", headers=self._headers
        )
        answer = ask(request, self._settings.registry_timeout_seconds, self._context)
        try:
            document: dict[str, Any] = msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            why = explain_page(request.full_url, answer.url, answer.media_type)
            raise unreachable(self._settings, why) from None
        return document

    def model(self, name: str) -> Model:
        """Returns the model without its versions."""
        found = self.get("registered-models/get", name=name)["registered_model"]
        tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
        if PROMPT_TAG in tags:
            raise LookupError
        return Model({one["alias"]: str(one["version"]) for one in found.get("aliases", [])}, tags, [])

    def version(self, name: str, number: str) -> Version:
        found = self.get("model-versions/get", name=name, version=number)["model_version"]
        return _to_version(found)

    def versions(self, name: str) -> list[Version]:
        """Returns all versions of a model, in any stage."""
        quoted = name.replace("'", "''")
        query = {"filter": f"name = '{quoted}'", "max_results": "1000"}
        found: list[Version] = []
        while True:
            page = self.get("model-versions/search", **query)
            found += map(_to_version, page.get("model_versions", []))
            if not page.get("next_page_token"):
                return found
            query["page_token"] = page["next_page_token"]


def _to_version(found: dict[str, Any]) -> Version:
    updated = found.get("last_updated_timestamp")
    return Version(
        found["name"],
        str(found["version"]),
        found.get("source", ""),
        found.get("run_id") or None,
        int(found["creation_timestamp"]),
        int(updated) if updated is not None else None,
        found.get("current_stage", "None"),
        {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])},
    )


def _ask_server(server: _Server, settings: Settings) -> Wanted | None:
    name = settings.model_name
    aliases, tags, _ = server.model(name)
    if settings.model_version is not None:
        numbers = {str(settings.model_version)}
    elif settings.model_stage is None and settings.model_alias in aliases:
        numbers = {aliases[settings.model_alias]}
    else:
        return _choose(Model(aliases, tags, server.versions(name)), settings)
    for alias in (settings.challenger_alias, settings.shadow_alias):
        if alias in aliases:
            numbers.add(aliases[alias])
    versions = [server.version(name, number) for number in sorted(numbers)]
    return _choose(Model(aliases, tags, versions), settings)
