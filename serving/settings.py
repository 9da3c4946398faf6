"""Every knob of the service, read from the environment once.

Inner code takes arguments; only `service.py`, the sync process and the scripts call `load_settings`.
"""

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SERVING_"


def split_names(text: str) -> list[str]:
    """Returns the names in a text that has commas between them."""
    return list(filter(None, (name.strip() for name in text.split(","))))


class Settings(BaseSettings):
    """The settings, with their defaults, limits and meaning."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    tracking_uri: str = Field(
        "sqlite:///mlflow.db",
        validation_alias="MLFLOW_TRACKING_URI",
        description="The MLflow registry; `MLFLOW_TRACKING_USERNAME`, `_PASSWORD` and `_TOKEN` log in.",
    )
    registry_uri: str | None = Field(
        None,
        validation_alias="MLFLOW_REGISTRY_URI",
        description="The registry of models, if it is not at `MLFLOW_TRACKING_URI`.",
    )
    registry_token_file: Path | None = Field(
        None,
        description="A file with the token that logs in to the registry, read anew for each question: for tokens that "
        "expire. It overrides `MLFLOW_TRACKING_TOKEN`.",
    )
    model_name: str = Field("churn", min_length=1, description="The registered model.")
    model_alias: str = Field(
        "production",
        min_length=1,
        description="The alias that is served; where it is not set, the legacy stage of the same name.",
    )
    model_stage: str | None = Field(
        None, description="A legacy stage (`Production`) to serve instead of the alias."
    )
    model_version: int | None = Field(
        None, ge=1, description="Pins one version; alias and stage are not asked."
    )
    challenger_alias: str | None = Field(
        None, min_length=1, description="The alias of a second version, which answers a part of the requests."
    )
    challenger_percent: float = Field(
        0,
        ge=0,
        le=100,
        description="Percent of the requests that the challenger answers; the tag `serving.challenger_percent` of the "
        "registered model goes before it.",
    )
    shadow_alias: str | None = Field(
        None,
        min_length=1,
        description="The alias of a version that is asked what was asked of the champion, after the answer is out.",
    )
    shadow_percent: float = Field(
        100,
        ge=0,
        le=100,
        description="Percent of the requests that the shadow is asked; the tag `serving.shadow_percent` goes before it.",
    )
    allow_version_choice: bool = Field(
        False, description="Whether a request may choose one of the loaded versions: `X-Model-Version`."
    )
    sync_seconds: float = Field(
        10,
        gt=0,
        le=86_400,
        description="Seconds between two questions to the registry; `POST /v1/sync` asks at once.",
    )
    registry_timeout_seconds: int = Field(
        5, ge=1, le=600, description="Seconds that one request to the tracking server may take."
    )
    prepare_timeout_seconds: float = Field(
        900, gt=0, le=86_400, description="Seconds that pulling, checking and preparing one version may take."
    )
    publish_examples: bool = Field(
        True,
        description="Whether everybody who reads `/docs.json` or the log of the start sees the model's logged example rows; "
        "else they see one that is made up from the signature.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="`text` on standard error for people, or `json` on standard output for collectors.",
    )
    log_traces: bool = Field(
        False,
        description="Whether the log has whole traces of what requests made a model raise. Their texts may hold callers' "
        "values: to find a mistake, not for production.",
    )
    drain_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which requests are still answered while `/readyz` says 503: what load "
        "balancers need to notice.",
    )
    shutdown_seconds: float = Field(
        30,
        gt=0,
        le=3600,
        description="Seconds that requests in flight may take after that; then they are cut off.",
    )
    request_timeout_seconds: float = Field(
        60,
        ge=0.1,
        le=86_400,
        description="Seconds that a request may take; then it is 504, or 503 if its call has not begun. "
        "`X-Request-Timeout` makes it less for one request. A worker whose model works at one call for 10 seconds longer "
        "is replaced.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="The secret of MLflow's webhook, which may then call `POST /v1/sync` to have the registry "
        "asked at once.",
    )
    prepare_memory_mb: float | None = Field(
        None,
        gt=0,
        description="Megabytes (10^6 bytes) that preparing may take; where it is not set, nine tenths of what is left "
        "in the container, or on the machine.",
    )
    max_model_mb: float = Field(
        5000,
        gt=0,
        description="Megabytes (10^6 bytes) that the files of a version may take in the artifact store.",
    )
    keep_versions: int = Field(
        5,
        ge=2,
        description="Prepared versions of a model that stay on disk; those used longest ago go first.",
    )
    keep_mb: float = Field(
        5000,
        gt=0,
        description="Megabytes (10^6 bytes) that they may take; the version that answers and the one before it "
        "stay in any case.",
    )
    preprocessing_mismatch: Literal["refuse", "warn"] = Field(
        "refuse",
        description="What to do with a model that was trained with another `preprocessing.py`.",
    )
    allow_pickle: bool = Field(
        False,
        description="Whether models may be loaded whose loading runs code that their writer chose: pickles of other "
        "types than are trusted, pyfunc models of their own code.",
    )
    trusted_types: str = Field(
        "",
        description="Types and functions of your own that a model may be made of, `module.Class` with commas between.",
    )
    readable_paths: str = Field(
        "",
        description="Absolute paths, with commas between, of what code of your own (`preprocessing.py`, trusted types) "
        "reads while it answers; of a file that is replaced now and then, its folder. On Linux workers may read "
        "these, the prepared models, Python's libraries and little else, unless `SERVING_ALLOW_PICKLE` is set.",
    )
    answer_rows: Literal["same", "any"] = Field(
        "same",
        description="How many results a model may answer: one for each row of the request, or `any` number, as "
        "forecasts do.",
    )
    library_versions: Literal["strict", "minor", "off"] = Field(
        "minor",
        description="How near the libraries that are installed must be to those that a model was logged with: the "
        "same version, the same but for its last part, or any.",
    )
    max_slowdown: float = Field(
        10,
        gt=0,
        description="A version that takes so many times as long for a row as the one that answers stays out.",
    )
    workers: int = Field(1, ge=1, le=256, description="Worker processes; each holds the model.")
    runtime: Literal["auto", "native"] = Field(
        "auto",
        description="`native` serves a model in the library that trained it, even where it is compiled.",
    )
    batching: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether requests that wait share a call of the model: `auto` where that pays and a row's "
        "answer does not depend on other rows, `on` always, `off` never.",
    )
    max_batch_rows: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Rows of one shared call; a compiled model's larger requests leave the event loop, too.",
    )
    max_queued_requests: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Requests of a worker that may wait for the model's thread; one more is 503. Small requests to "
        "compiled models are answered without one.",
    )
    metrics: bool = Field(
        True, description="Whether requests are counted; without, their metrics stay 0 in `/metrics`."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads of a worker that may work at one large call of a compiled model; "
        "where it is not set, the processors that there are, shared among the workers.",
    )
    max_body_mb: float = Field(
        100, gt=0, le=2000, description="Megabytes (10^6 bytes) that a request body may have; larger is 413."
    )
    request_memory_mb: float | None = Field(
        None,
        ge=1,
        description="Megabytes (10^6 bytes) that a request may take in a worker's memory once it is read, else it is 413; "
        "and all that are being answered together, else a large one is 503. Where it is not set, a fifth of the "
        "memory of the container, or of the machine, shared among the workers; 1000 at most.",
    )
    max_rows: int = Field(100_000, ge=1, description="Rows that one request may have; more is 413.")
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Open connections of a worker; for one more the one that is idle longest is closed, or it is 503.",
    )
    header_seconds: float = Field(
        10,
        gt=0,
        le=3600,
        description="Seconds that the headers of a request may take to arrive; then it is 408.",
    )
    body_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="Seconds that the body of a request may take to arrive; then it is 408. An answer may take as "
        "long to be fetched.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose web pages may call the service, such as `https://app.example`, with commas between; "
        "`*` is any.",
    )

    @field_validator("readable_paths")
    @classmethod
    def _paths_are_absolute(cls, value: str) -> str:
        if not all(path.startswith("/") for path in split_names(value)):
            raise ValueError("each path begins with /")
        return value

    @property
    def registry(self) -> str:
        """The URI of the registry. Of a Databricks workspace it is Unity Catalog, if no other one is set.

        Source: `_get_default_registry_uri_for_tracking_uri` in mlflow/tracking/_model_registry/utils.py.
        """
        if self.registry_uri is not None:
            return self.registry_uri
        workspace, separator, profile = self.tracking_uri.partition("://")
        return f"databricks-uc{separator}{profile}" if workspace == "databricks" else self.tracking_uri

    @property
    def trusted_type_names(self) -> frozenset[str]:
        """The trusted types as a set."""
        return frozenset(split_names(self.trusted_types))

    @property
    def readable_files(self) -> list[Path]:
        """The readable paths as a list."""
        return [Path(path) for path in split_names(self.readable_paths)]

    @property
    def cors_origin_names(self) -> list[str]:
        """The origins as a list."""
        return split_names(self.cors_origins)

    @property
    def max_body_bytes(self) -> int:
        """The body limit in bytes."""
        return int(self.max_body_mb * 1_000_000)


def environment_name(field: str) -> str:
    """Returns the environment variable that sets a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names variable and expectation."""


def load_settings() -> Settings:
    """Reads the settings from the environment.

    Raises:
        SettingsError: a variable has a value that cannot be used.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # all fields come from the environment
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            variable = environment_name(name) if name in Settings.model_fields else name
            lines.append(f"{variable}: {problem['msg'].lower()}, got {problem['input']!r}")
        raise SettingsError("; ".join(lines)) from None


def unknown_variables(environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """Returns the `SERVING_*` variables that no setting reads, each with the nearest known name.

    Kubernetes itself sets `SERVING_SERVICE_HOST`, `SERVING_PORT` and the like in every pod where a
    Service is called `serving`, so an unknown variable is worth a warning, not a refusal.
    """
    names = os.environ if environment is None else environment
    known = {environment_name(field) for field in Settings.model_fields} | {RUN_DIRECTORY_VARIABLE}
    injected = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT")
    unknown = sorted(
        name
        for name in names
        if name.startswith(PREFIX) and name not in known and not name.startswith(injected)
    )
    return {name: next(iter(difflib.get_close_matches(name, known, 1)), None) for name in unknown}


RUN_DIRECTORY_VARIABLE = "SERVING_RUN_DIRECTORY"
"""Set by the service for its own workers, not by users: where they find the state of the sync process."""
