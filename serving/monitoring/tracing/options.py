"""OpenTelemetry's own variables, read before anything of it is imported.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and .../protocol/exporter/.
"""

from collections.abc import Mapping
from pathlib import Path

_OTLP, _TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"

SECRETS = (f"{_OTLP}HEADERS", f"{_TRACES}HEADERS")
"""Variables with credentials of the collector."""

PROTOCOL = "http/protobuf"

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def exports_traces(environment: Mapping[str, str]) -> bool:
    """Whether spans are recorded and sent: an endpoint is set, and nothing switches them off."""
    return (
        bool(environment.get(f"{_TRACES}ENDPOINT") or environment.get(f"{_OTLP}ENDPOINT"))
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"
    )


def find_trouble(environment: Mapping[str, str]) -> str | None:
    """Returns why spans cannot be sent as the variables ask; None if they can."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f"OTEL_TRACES_EXPORTER: expected otlp or none, got {exporter}"
    for name in (f"{_TRACES}PROTOCOL", f"{_OTLP}PROTOCOL"):
        protocol = environment.get(name, "").strip()
        if protocol:
            if protocol != PROTOCOL:
                return f"{name}: expected {PROTOCOL} (port 4318 of most collectors), got {protocol}"
            break
    for name in (f"{_TRACES}ENDPOINT", f"{_OTLP}ENDPOINT"):
        endpoint = environment.get(name, "")
        if endpoint:
            if not endpoint.startswith(("http://", "https://")):
                return f"{name}: expected a URL, as in http://collector:4318, got one without http:// or https://"
            break
    return None


def certificate_files(environment: Mapping[str, str]) -> list[Path]:
    """Returns the files that the exporter reads for TLS."""
    if not exports_traces(environment):
        return []
    own = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    # The last two are of requests, which the exporter uses.
    names = (*(f"{_TRACES}{name}" for name in own), *(f"{_OTLP}{name}" for name in own), *_BUNDLES)
    return [Path(environment[name]) for name in names if environment.get(name)]
