"""Every knob of the service, read from the environment once.

Inner code takes arguments; only `service.py`, the sync process and the scripts call `load_settings`.
"""

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SERVING_"


def split_names(text: str) -> list[str]:
    """Returns the names in a text that has commas between them."""
    return list(filter(None, (name.strip() for name in text.split(","))))


class Settings(BaseSettings):
    """The settings, with their defaults, limits and meaning."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    # Registry
    tracking_uri: str = Field(
        "sqlite:///mlflow.db",
        validation_alias="MLFLOW_TRACKING_URI",
        description="MLflow tracking server. Log in with `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, or `_TOKEN`.",
    )
    registry_uri: str | None = Field(
        None,
        validation_alias="MLFLOW_REGISTRY_URI",
        description="Model registry, if it is separate from the tracking server.",
    )
    registry_token_file: Path | None = Field(
        None,
        description="File with the registry token, read before each request: for tokens that expire. Overrides "
        "`MLFLOW_TRACKING_TOKEN`.",
    )
    registry_timeout_seconds: int = Field(
        5, ge=1, le=600, description="Timeout of a request to the tracking server."
    )
    sync_seconds: float = Field(
        10, gt=0, le=86_400, description="Registry polling interval. `POST /v1/sync` polls at once."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Secret of MLflow's webhook. Required for `POST /v1/sync`."
    )
    # Which version
    model_name: str = Field("churn", min_length=1, description="Name of the registered model.")
    model_alias: str = Field(
        "production",
        min_length=1,
        description="Alias to serve. If no version has it, the legacy stage of the same name is served.",
    )
    model_stage: str | None = Field(
        None, description="Legacy stage (`Production`) to serve instead of the alias."
    )
    model_version: int | None = Field(None, ge=1, description="Pins a version. Alias and stage are ignored.")
    challenger_alias: str | None = Field(
        None, min_length=1, description="Alias of a second version that answers a share of the requests."
    )
    challenger_percent: float = Field(
        0,
        ge=0,
        le=100,
        description="Share of requests that the challenger answers. The registered model's tag "
        "`serving.challenger_percent` overrides it.",
    )
    shadow_alias: str | None = Field(
        None,
        min_length=1,
        description="Alias of a version that gets a copy of the champion's requests after the answer is sent.",
    )
    shadow_percent: float = Field(
        100,
        ge=0,
        le=100,
        description="Share of requests copied to the shadow. The tag `serving.shadow_percent` overrides it.",
    )
    allow_version_choice: bool = Field(
        False, description="Let requests choose a loaded version with `X-Model-Version`."
    )
    # Preparing a version
    prepare_timeout_seconds: float = Field(
        900, gt=0, le=86_400, description="Time limit for pulling, checking and compiling a version."
    )
    prepare_memory_mb: float | None = Field(
        None,
        gt=0,
        description="Memory limit for preparing a version. Default: 90 % of the memory that is free in the container "
        "or on the machine.",
    )
    max_model_mb: float = Field(
        5000, gt=0, description="Size limit of a version's files in the artifact store."
    )
    keep_versions: int = Field(
        5, ge=2, description="Prepared versions to keep on disk. The least recently used are deleted first."
    )
    keep_mb: float = Field(
        5000,
        gt=0,
        description="Disk space for prepared versions. The current version and the previous one are always kept.",
    )
    # What may be promoted
    allow_pickle: bool = Field(
        False,
        description="Load models that can run arbitrary code: pickles with untrusted types, pyfunc models, and models "
        "that need Python files of their own (`code_paths`).",
    )
    trusted_types: str = Field(
        "",
        description="Your own types and functions that a model may contain, as `module.Class`, separated by commas. "
        "Their modules must be installed with the service, or be beside `service.py`.",
    )
    readable_paths: str = Field(
        "",
        description="Absolute paths that your own code (`preprocessing.py`, trusted types) reads while it answers, "
        "separated by commas. Name the folder if a file is replaced now and then. On Linux, workers can read only these, "
        "the prepared models and Python's libraries, unless `SERVING_ALLOW_PICKLE` is set.",
    )
    preprocessing_mismatch: Literal["refuse", "warn"] = Field(
        "refuse",
        description="What to do with a model trained with a different `preprocessing.py`: `warn` runs the model's own, "
        "and needs `SERVING_ALLOW_PICKLE`.",
    )
    library_versions: Literal["strict", "minor", "off"] = Field(
        "minor",
        description="How closely installed libraries must match those of the training: `strict` the same version, "
        "`minor` the same major and minor number, `off` any.",
    )
    max_slowdown: float = Field(
        10, gt=0, description="Reject versions more than this many times slower per row than the current one."
    )
    answer_rows: Literal["same", "any"] = Field(
        "same",
        description="Results per request: `same` requires one for each row, `any` allows any number, as forecasts need.",
    )
    # Requests
    request_timeout_seconds: float = Field(
        60,
        ge=0.1,
        le=86_400,
        description="Time limit of a request: 504 after it, or 503 if the model was not called yet. `X-Request-Timeout` "
        "shortens it for one request. A worker whose call overruns by 10 seconds is replaced.",
    )
    header_seconds: float = Field(
        10, gt=0, le=3600, description="Time limit for receiving the headers of a request; 408 after it."
    )
    body_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="Time limit for receiving a body (408 after it), and for sending an answer.",
    )
    max_body_mb: float = Field(100, gt=0, le=2000, description="Size limit of a request body; 413 above it.")
    max_rows: int = Field(100_000, ge=1, description="Row limit of a request; 413 above it.")
    request_memory_mb: float | None = Field(
        None,
        ge=1,
        description="Memory limit of a decoded request in a worker (413 above it), and of all requests together (503 for "
        "large ones). Default: a fifth of the container's or machine's memory, shared among the workers, at most 1000.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Open connections per worker. One more closes the longest idle connection; if none is idle, it gets "
        "503.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose web pages may call the service, such as `https://app.example`, separated by commas; "
        "`*` allows any.",
    )
    publish_examples: bool = Field(
        True,
        description="Show the model's logged example rows in `/docs.json` and in the start log. If off, an example is "
        "generated from the signature.",
    )
    # Workers and batching
    workers: int = Field(1, ge=1, le=256, description="Worker processes. Each holds the model.")
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads per worker for a large call of a compiled model. Default: the available processors, shared "
        "among the workers.",
    )
    runtime: Literal["auto", "native"] = Field(
        "auto", description="`auto` compiles models, `native` serves them with the library that trained them."
    )
    batching: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether waiting requests share a call: `auto` if it is faster and rows are independent, `on` always, "
        "`off` never.",
    )
    max_batch_rows: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Row limit of a shared call. Larger requests to compiled models run outside the event loop.",
    )
    max_queued_requests: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Requests per worker that may wait for the model's thread; 503 above it. Small requests to compiled "
        "models bypass the queue.",
    )
    # Stopping
    drain_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        description="After SIGTERM, time to keep answering while `/readyz` is 503, until load balancers have noticed.",
    )
    shutdown_seconds: float = Field(
        30, gt=0, le=3600, description="After draining, time for requests in flight to finish."
    )
    # Logs and metrics
    log_format: Literal["text", "json"] = Field(
        "text", description="`text` to standard error for people, `json` to standard output for collectors."
    )
    log_traces: bool = Field(
        False,
        description="Log full tracebacks of models that fail. They may contain callers' values: for debugging, not for "
        "production.",
    )
    slow_request_seconds: float = Field(
        1,
        gt=0,
        le=86_400,
        description="From this duration on, a request is logged, and so is every 5xx. Lines contain no inputs.",
    )
    log_requests_percent: float = Field(0, ge=0, le=100, description="Share of the other requests to log.")
    metrics: bool = Field(True, description="Count requests. If off, their metrics stay 0 in `/metrics`.")
    # Drift
    monitored_features: int = Field(
        50,
        ge=0,
        le=1000,
        description="Inputs that are compared with the model's reference. If a model has more than 50, the most important ones; "
        "else the first of the signature. 0 switches drift off.",
    )
    drift_window_seconds: float = Field(
        3600, ge=60, le=604_800, description="Window of `/v1/drift` and of `model_feature_mean`."
    )
    # Prediction log
    log_predictions: Path | None = Field(
        None, description="Folder of the prediction log. Without one, predictions are not logged."
    )
    log_percent: float = Field(100, gt=0, le=100, description="Share of requests in the log.")
    log_exclude: str = Field(
        "", description="Inputs and parameters that are not logged, separated by commas; `*` for all of them."
    )
    log_key: str | None = Field(
        None,
        validate_default=True,
        description="Input whose value is logged as the row's `key`, such as a customer's number. Default: the header "
        "`X-Routing-Key`.",
    )
    log_hash: str = Field(
        "",
        description="Inputs that are logged as HMAC-SHA256, separated by commas. `key` hashes the column `key`.",
    )
    log_hash_key: SecretStr | None = Field(
        None, validate_default=True, description="Secret key of these hashes: 32 random characters or more."
    )
    log_file_mb: float = Field(64, gt=0, le=2000, description="Size at which the log begins a new file.")
    log_file_seconds: float = Field(
        300, ge=1, le=86_400, description="Age at which the log begins a new file."
    )
    log_keep_mb: float = Field(
        10_000, gt=0, description="Size limit of the log. The oldest files are deleted first."
    )
    log_keep_days: float = Field(30, gt=0, le=36_500, description="Age at which the log's files are deleted.")
    # Feedback and quality
    feedback_store: SecretStr | None = Field(
        None,
        validate_default=True,
        description="Where truths are kept: `sqlite`, a file in the prediction log's folder, for one replica, or "
        "`postgresql://user:password@host/database`, for any number. Without it, `/v1/feedback` is off.",
    )
    quality_slices: str = Field(
        "", description="Inputs by whose values quality is also computed, separated by commas."
    )
    quality_seconds: float = Field(
        60, ge=1, le=86_400, description="Minimum time between two evaluations of quality."
    )

    @field_validator("readable_paths")
    @classmethod
    def _paths_are_absolute(cls, value: str) -> str:
        if not all(path.startswith("/") for path in split_names(value)):
            raise ValueError("each path begins with /")
        return value

    @field_validator("log_key")
    @classmethod
    def _key_is_logged(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value in split_names(info.data.get("log_exclude", "")):
            raise ValueError("an excluded input cannot be the key")
        return value

    @field_validator("log_hash_key")
    @classmethod
    def _hashes_have_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("log_hash"):
            raise ValueError("hashed inputs need a key")
        return value

    @field_validator("feedback_store")
    @classmethod
    def _store_is_known(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value()
        if url != "sqlite" and not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("expected sqlite or a URL that begins with postgresql://")
        if info.data.get("log_predictions") is None:
            raise ValueError("feedback needs a prediction log (SERVING_LOG_PREDICTIONS)")
        return value

    @field_validator("quality_slices")
    @classmethod
    def _slices_are_logged(cls, value: str, info: ValidationInfo) -> str:
        hidden = {*split_names(info.data.get("log_exclude", "")), *split_names(info.data.get("log_hash", ""))}
        if value and hidden & {*split_names(value), "*"}:
            raise ValueError(
                "inputs that are excluded from the prediction log, or hashed there, have no slices"
            )
        return value

    @property
    def quality_slice_names(self) -> list[str]:
        """The inputs of the slices as a list."""
        return split_names(self.quality_slices)

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


_SECRETS = {name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None}
"""Their values are not shown."""


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
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if name in _SECRETS else f", got {problem['input']!r}"
            lines.append(f"{variable}: {message[:1].lower()}{message[1:]}{got}")
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
