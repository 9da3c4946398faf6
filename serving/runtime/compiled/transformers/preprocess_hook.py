"""`preprocessing.py` in a compiled pipeline: its `preprocess_columns`, called with the columns."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from serving.runtime.compiled.data import Columns, Data, NotCompiled
from serving.runtime.compiled.nodes import Transformer

MODULE, FRAME_FUNCTION, COLUMNS_FUNCTION = "preprocessing", "preprocess", "preprocess_columns"


@dataclass
class PreprocessHook(Transformer):
    """The user's function, from the source logged with the model."""

    source: str
    _function: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        module = ModuleType(MODULE)
        exec(compile(self.source, f"{MODULE}.py", "exec"), module.__dict__)  # noqa: S102  # the model's own code
        self._function = getattr(module, COLUMNS_FUNCTION)

    def transform(self, data: Data) -> Data:
        """Returns the function's columns.

        Raises:
            ValueError: it returned another number of rows.
            Exception: whatever the function raises.
        """
        assert isinstance(data, Columns)
        out = self._function(dict(zip(data.names, data.arrays, strict=True)))
        columns = Columns(tuple(out), list(out.values()))
        shape = data.arrays[0].shape
        for array in columns.arrays:
            if array.shape != shape:
                raise ValueError(f"{COLUMNS_FUNCTION} returned arrays that do not have one element per row")
        return columns


def is_hook(function: Any) -> bool:
    """Whether a FunctionTransformer's function is that of `preprocessing.py`."""
    return getattr(function, "__module__", "") == MODULE and function.__qualname__ == FRAME_FUNCTION


def compile_hook(function: Any, sample: Data) -> PreprocessHook:
    """Compiles `preprocessing.preprocess`.

    Raises:
        NotCompiled: the file has no function of columns, or imports modules that a worker lacks.
    """
    # Not through sys.modules: another version's file may have the name there.
    if COLUMNS_FUNCTION not in function.__globals__:
        raise NotCompiled(f"{MODULE}.py has no {COLUMNS_FUNCTION}")
    if not isinstance(sample, Columns):
        raise NotCompiled(f"{MODULE}.py is not the first step")
    try:
        return PreprocessHook(Path(function.__globals__["__file__"]).read_text())
    except Exception as error:
        raise NotCompiled(f"{MODULE}.py cannot be run by itself: {type(error).__name__}") from error
