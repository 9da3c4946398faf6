"""The question that a container's HEALTHCHECK asks: does the service answer?

    python -m serving.http.health
    python -m serving.http.health /readyz   # has it a model?

Exit code 0 when it answers 200, 1 when it does not.
"""

import http.client
import os
import sys


def main(path: str = "/livez") -> int:
    """Asks; returns the exit code."""
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
