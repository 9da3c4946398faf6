"""The question that a container's HEALTHCHECK asks: does the service answer? Readiness is `/readyz`'s.

    python -m serving.health

Exit code 0 when it does, 1 when it does not.
"""

import http.client
import os
import sys


def main() -> int:
    """Asks; returns the exit code."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("BENTOML_PORT") or 3000), timeout=4
    )
    try:
        connection.request("GET", "/livez")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
