"""What a loaded model needs to watch its drift."""

from pathlib import Path
from typing import Any

from serving.model.prepared import Prepared
from serving.monitoring.drift.exposition import Exposition
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.reference import read_reference
from serving.monitoring.drift.report import describe_drift


class Monitor:
    """The drift of one loaded model."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Path | None,
        *,
        n_inputs: int,
        window_seconds: float,
        shows_values: bool,
    ) -> None:
        """Reads the model's reference.

        Args:
            prepared: the model.
            folder: shared by the workers; None keeps the counts in this process.
            n_inputs: the number of inputs to monitor.
            window_seconds: length of the window.
            shows_values: whether bins are named by the reference's values.

        Raises:
            OSError: the model has no reference.
        """
        reference = read_reference(prepared.folder)
        manifest = prepared.manifest
        self._recorder = Recorder(
            manifest, reference, prepared.tag, folder, n_inputs=n_inputs, window_seconds=window_seconds
        )
        self._exposition = Exposition(manifest, self._recorder, shows_values=shows_values)
        self.observe = self._recorder.observe
        self.flush = self._recorder.flush
        self.close = self._recorder.close
        self.lines = self._exposition.lines
        self._bin_names = self._exposition.bin_names

    def describe(self) -> dict[str, Any]:
        """Returns the model's entry in `/v1/drift`, without its name."""
        return describe_drift(self._recorder, self._bin_names)
