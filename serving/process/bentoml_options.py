"""Options of BentoML that this service does not follow, since its requests do not pass BentoML's application."""

from collections.abc import Iterator, Mapping
from typing import Any

INSTEAD = {
    "http.cors": "set SERVING_CORS_ORIGINS",
    "http.response": None,
    "logging": None,
    "metrics": "see SERVING_METRICS",
    "monitoring": None,
    "traffic": "see SERVING_MAX_CONNECTIONS, SERVING_MAX_QUEUED_REQUESTS and SERVING_BODY_SECONDS",
    "tracing": None,
}
"""What is not followed, and what there is instead."""


def ignored_options(wanted: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns the options that somebody has set and nothing follows, each with what there is instead.

    Args:
        wanted: of this service, with what `BENTOML_CONFIG` says.
        usual: without.
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
