"""The writer process; see `serving.monitoring.prediction_log`."""

import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from serving.monitoring.prediction_log.options import Options, socket_path
from serving.process.logs import configure_logging

log = logging.getLogger("serving.prediction_log")


def main(options: Options) -> None:
    """Runs until the parent and the workers have ended."""
    configure_logging(options.log_format)
    # It ends after the workers, whose last rows it gets.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(Path(options.run_directory) / "metrics")
    from serving.monitoring.prediction_log.writer import CLOSE_SECONDS, Writer, receive

    path = socket_path(Path(options.run_directory))
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        writer = Writer(options)
        receive(listener, writer, parent=0)
        writer.close(CLOSE_SECONDS)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Options))
