"""The keeper process; see `serving.monitoring.feedback`."""

import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from serving.monitoring.feedback.options import Options, socket_path
from serving.process.logs import configure_logging


def main(options: Options) -> None:
    """Runs until the parent has ended."""
    configure_logging(options.log_format)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends after its parent
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(Path(options.run_directory) / "metrics")
    from serving.monitoring.feedback.keeper import Keeper, receive

    path = socket_path(Path(options.run_directory))
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        keeper = Keeper(options)
        receive(listener, keeper, parent=0)
        keeper.close()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Options))
