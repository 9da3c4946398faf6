"""BentoML options without effect here, since requests bypass BentoML's application."""

from collections.abc import Iterator, Mapping
from typing import Any

INSTEAD = {
    "http.cors": "set SERVING_CORS_ORIGINS",
    "http.response": None,
    "logging": None,
    "metrics": "see SERVING_METRICS",
    "monitoring": None,
    "traffic": "see SERVING_MAX_CONNECTIONS, SERVING_MAX_QUEUED_REQUESTS and SERVING_BODY_SECONDS",
    "tracing": "set OTEL_EXPORTER_OTLP_ENDPOINT",
}
"""Ignored options, and their replacements."""


def ignored_options(wanted: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns the options that are set but ignored, each with its replacement.

    Args:
        wanted: options of this service, with `BENTOML_CONFIG`.
        usual: the same without it.
    """
    known = dict(_flatten(usual))
    return {
        name: INSTEAD[part]
        for name, value in _flatten(wanted)
        for part in INSTEAD
        if name.startswith(f"{part}.") and value != known.get(name)
    }


def _flatten(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
