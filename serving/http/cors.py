"""CORS: which web pages of other origins may call the service. Only browsers enforce it."""

from starlette.middleware.cors import CORSMiddleware

from serving.http.gateway import App

SENT = (
    "Content-Type",
    "Content-Encoding",
    "X-Model-Version",
    "X-Request-ID",
    "X-Request-Timeout",
    "X-Routing-Key",
    "Traceparent",
    "Tracestate",
)
"""Request headers allowed in addition to the safelisted ones."""

SHOWN = ("X-Model-Role", "X-Model-Version", "X-Request-ID", "Traceparent", "Retry-After")
"""Response headers exposed in addition to the safelisted ones."""


def allow_origins(app: App, origins: list[str]) -> App:
    """Returns the application with `Access-Control-*` headers for these origins; `*` is any.

    The browser sends no cookies or logins. Source: the Fetch standard, "HTTP extensions".
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=SENT,
        expose_headers=SHOWN,
    )
