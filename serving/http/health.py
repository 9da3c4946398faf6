"""The container's HEALTHCHECK.

    python -m serving.http.health           # is the service up?
    python -m serving.http.health /readyz   # is a model loaded?

Exit code 0 for status 200, else 1.
"""

import http.client
import os
import sys


def main(path: str = "/livez") -> int:
    """Requests the path and returns the exit code."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("BENTOML_PORT") or 3000), timeout=4
    )
    try:
        connection.request("GET", path)
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
