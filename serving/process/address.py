"""Checks at startup that the service can listen on its address.

BentoML finds out late, and shows a traceback.
"""

import errno
import ipaddress
import socket

INSTEAD = "choose another with `bentoml serve -p PORT` or `make serve PORT=…`"


def wanted_address() -> tuple[str, int] | None:
    """Returns host and port of the running `bentoml serve`; None if something else started the service.

    Source: bentoml_cli.serve, whose options override BENTOML_CONFIG.
    """
    import click
    from bentoml._internal.configuration.containers import BentoMLContainer

    context = click.get_current_context(silent=True)
    if context is None or not {"host", "port"} <= context.params.keys():
        return None
    host, port = context.params["host"], context.params["port"]
    return (
        BentoMLContainer.http.host.get() if host is None else host,
        BentoMLContainer.http.port.get() if port is None else port,
    )


def why_not_listen(host: str, port: int) -> str | None:
    """Returns why the service cannot listen there; None if it can, or if the host is a name, which BentoML checks."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as circus does
            trial.bind((host, port))
    except OverflowError:
        return f"port {port} is not from 0 to 65535; {INSTEAD}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is in use; {INSTEAD}"
        if error.errno == errno.EACCES:
            return f"port {port} may not be used by this user; {INSTEAD}"
        return f"nothing can listen on {host} port {port}: {error.strerror}"
    return None
