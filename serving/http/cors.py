"""Web pages of other origins: which may call the service. Browsers ask; other clients do not care."""

from starlette.middleware.cors import CORSMiddleware

from serving.http.gateway import App

SENT = (
    "Content-Type",
    "Content-Encoding",
    "X-Model-Version",
    "X-Request-ID",
    "X-Request-Timeout",
    "X-Routing-Key",
)
"""Headers that a page may send beside those that it always may."""

SHOWN = ("X-Model-Role", "X-Model-Version", "X-Request-ID", "Retry-After")
"""Headers of an answer that a page may read beside those that it always may."""


def allow_origins(app: App, origins: list[str]) -> App:
    """Returns the application with `Access-Control-*` in its answers to pages of these origins; `*` is any.

    Cookies and logins of the browser are not sent along. Source: the Fetch standard, "HTTP extensions".
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=SENT,
        expose_headers=SHOWN,
    )
