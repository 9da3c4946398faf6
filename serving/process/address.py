"""Whether this service can listen where it was told to, asked before anything is started.

BentoML finds out when all else is under way, and shows a trace.
"""

import errno
import ipaddress
import socket

INSTEAD = "choose another with `bentoml serve -p PORT` or `make serve PORT=…`"


def wanted_address() -> tuple[str, int] | None:
    """Returns host and port of the `bentoml serve` that runs; None if something else has started the service.

    Source: bentoml_cli.serve, whose options go before BENTOML_CONFIG.
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
    """Returns why nothing can listen there; None if it can, or the host is no address, which BentoML tells."""
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
