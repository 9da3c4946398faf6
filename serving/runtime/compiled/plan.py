"""A compiled pipeline on disk: `plan.msgpack`, the nodes and their small fields, and `arrays.bin`.

The arrays are in one file that each worker maps into memory, so that all share one copy. Each bytes field has its own
file, and is read back as its path.
"""

import dataclasses
import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving.runtime.compiled.nodes import Node, Predictor

PLAN, ARRAYS = "plan.msgpack", "arrays.bin"

ALIGNMENT_BYTES = 64
"""A cache line; sufficient alignment for any NumPy dtype."""


def save_plan(predictor: Predictor, folder: Path) -> None:
    """Writes a compiled pipeline into a new folder.

    Raises:
        OSError: it cannot be written.
        TypeError: a node has a field that is not state: not a node, number, text, list, dict or array.
    """
    folder.mkdir()
    with (folder / ARRAYS).open("wb") as file:
        plan = _Writer(folder, file).value(predictor)
    (folder / PLAN).write_bytes(msgspec.msgpack.encode(plan))


def load_plan(folder: Path) -> Predictor:
    """Reads a compiled pipeline back.

    Raises:
        OSError: a file is missing.
        msgspec.MsgspecError: not a plan.
    """
    plan = msgspec.msgpack.decode((folder / PLAN).read_bytes())
    with (folder / ARRAYS).open("rb") as file:
        size = file.seek(0, 2)
        memory: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    node = _Reader(folder, memory).value(plan)
    assert isinstance(node, Predictor)
    return node


class _Writer:
    def __init__(self, folder: Path, file: Any) -> None:
        self._folder, self._file = folder, file
        self._n_files = 0

    def value(self, value: Any) -> Any:
        if isinstance(value, Node):
            fields = [field.name for field in dataclasses.fields(value) if field.init]  # type: ignore[arg-type]
            return {"node": type(value).__name__, **{f: self.value(getattr(value, f)) for f in fields}}
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            return self.value(value.item())
        if isinstance(value, dict):
            return {"pairs": [[self.value(k), self.value(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, bytes):
            name = f"bytes-{self._n_files}.bin"
            self._n_files += 1
            (self._folder / name).write_bytes(value)
            return {"file": name}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"a {type(value).__name__} cannot be written into a plan")

    def _array(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if array.dtype.kind not in "biuf":
            kind = "str" if array.dtype.kind == "U" else "object"
            return {"values": [self.value(item) for item in array.tolist()], "dtype": kind}
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT_BYTES))
        start = self._file.tell()
        self._file.write(np.ascontiguousarray(array).tobytes())
        return {"array": start, "dtype": array.dtype.str, "shape": list(array.shape)}


class _Reader:
    def __init__(self, folder: Path, memory: Any) -> None:
        self._folder, self._memory = folder, memory

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "node" in value:
            fields = {key: self.value(item) for key, item in value.items() if key != "node"}
            return Node.kinds[value["node"]](**fields)
        if "pairs" in value:
            return {self.value(key): self.value(item) for key, item in value["pairs"]}
        if "file" in value:
            return self._folder / value["file"]
        if "values" in value:
            return np.array([self.value(item) for item in value["values"]], dtype=value["dtype"])
        dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        if count == 0:
            return np.empty(shape, dtype)
        return np.frombuffer(self._memory, dtype=dtype, count=count, offset=value["array"]).reshape(shape)
