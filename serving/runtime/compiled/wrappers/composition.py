"""Pipeline, ColumnTransformer, FeatureUnion: combinations of nodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.runtime import Output
from serving.runtime.compiled.data import (
    Cells,
    Columns,
    Data,
    NotCompiled,
    concatenate,
    count_columns,
    count_rows,
    filled,
    select,
)
from serving.runtime.compiled.nodes import (
    Predictor,
    Transformer,
    compile_predictor,
    compile_transformer,
    compiles_predictor,
    compiles_transformer,
)
from serving.runtime.compiled.sparse import Sparse


@dataclass
class Chain(Transformer):
    """Steps in sequence."""

    steps: list[Transformer]

    def transform(self, data: Data) -> Data:
        """Returns the last step's result."""
        for step in self.steps:
            data = step.transform(data)
        return data

    def takes_cells(self) -> bool:
        """Whether all steps take cells."""
        return all(step.takes_cells() for step in self.steps)

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns the last step's result."""
        for step in self.steps:
            cells = step.transform_cells(cells)
        return cells


@dataclass
class Identity(Transformer):
    """`passthrough`."""

    def transform(self, data: Data) -> Data:
        """Returns the data."""
        return data

    def takes_cells(self) -> bool:
        """It does."""
        return True

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns the cells."""
        return cells


@dataclass
class Branches(Transformer):
    """Each branch transforms its columns; the results stand side by side."""

    positions: list[list[int]]
    steps: list[Transformer]
    weights: list[float | None]
    is_filled: bool = False
    """Whether the fit decided to make sparse branches dense."""

    def transform(self, data: Data) -> Data:
        """Returns one matrix: columns if a branch returns text, sparse if one is sparse."""
        blocks = []
        for positions, step, weight in zip(self.positions, self.steps, self.weights, strict=True):
            block = step.transform(select(data, positions))
            if weight is not None:
                block = _weighted(block, weight)
            blocks.append(block.toarray() if self.is_filled and isinstance(block, Sparse) else block)
        if not blocks:
            return np.empty((count_rows(data), 0))
        return concatenate(blocks)

    def takes_cells(self) -> bool:
        """Whether all branches take cells."""
        return all(weight is None for weight in self.weights) and all(
            step.takes_cells() for step in self.steps
        )

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns the branches' cells in order."""
        out: Cells = []
        for positions, step in zip(self.positions, self.steps, strict=True):
            out += step.transform_cells([cells[position] for position in positions])
        return out


def _weighted(block: Data, weight: float) -> Data:
    if isinstance(block, Columns):
        return Columns(block.names, [array * weight for array in block.arrays])
    if isinstance(block, Sparse):
        return block.with_values(block.values * weight)
    return block * weight


@dataclass
class ChainPredictor(Predictor):
    """Transformers and a final predictor."""

    steps: list[Transformer]
    last: Predictor
    n_cells: int | None = None
    """For a single row, the number of first steps that get arrays; the others get its cells. None: all get arrays."""

    def __post_init__(self) -> None:
        self.classes = getattr(self.last, "classes", None)

    def output(self, data: Data) -> Output:
        """Returns the last step's output."""
        return self.last.output(self._transform(data))

    def decision(self, data: Data) -> Any:
        """Returns the last step's decision function."""
        return self.last.decision(self._transform(data))

    def _transform(self, data: Data) -> Data:
        if self.n_cells is not None and count_rows(data) == 1:
            matrix = self._transform_cells(data, self.n_cells)
            if matrix is not None:
                return matrix
        for step in self.steps:
            data = step.transform(data)
        return data

    def _transform_cells(self, data: Data, n_cells: int) -> Data | None:
        """Transforms one row as cells; None if that fails, and `transform` must process it."""
        try:
            for step in self.steps[:n_cells]:
                data = step.transform(data)
            cells = [a.item() for a in data.arrays] if isinstance(data, Columns) else filled(data)[0].tolist()
            for step in self.steps[n_cells:]:
                cells = step.transform_cells(cells)
            matrix = np.array([cells])
        except Exception:  # noqa: BLE001  # `transform` raises it again if the original does
            return None
        return matrix if matrix.dtype.kind in "fiub" else None


def count_steps_before_cells(steps: list[Transformer], sample: Data) -> int | None:
    """Returns the number of first steps that need arrays, if all others take cells; else None.

    Cells have no float32: with a column of that dtype, sums would be more precise than the original's.
    """
    for n_arrays in range(len(steps)):
        arrays = sample.arrays if isinstance(sample, Columns) else [sample]
        if any(array.dtype not in _CELL_DTYPES for array in arrays):
            return None
        if all(step.takes_cells() for step in steps[n_arrays:]):
            return n_arrays
        sample = steps[n_arrays].transform(sample)
    return None


_CELL_DTYPES = [np.dtype(dtype) for dtype in (np.float64, np.int64, np.int32, np.bool_, object)]


def compile_steps(fitted: list[Any], sample: Data) -> tuple[list[Transformer], Data]:
    """Compiles a sequence of transformers; returns them and the transformed sample.

    Raises:
        NotCompiled: a step has no compiled form.
    """
    steps: list[Transformer] = []
    for one in fitted:
        if one is None or one == "passthrough":
            continue
        step = compile_transformer(one, sample)
        sample = step.transform(sample)
        fused = step.after(steps[-1]) if steps else None
        if fused is not None:
            steps[-1] = fused
        else:
            steps.append(step)
    return steps, sample


@compiles_transformer("sklearn.Pipeline")
def compile_chain(pipeline: Any, sample: Data) -> Transformer:
    """Compiles a pipeline that ends in a transformer."""
    steps, _ = compile_steps([step for _, step in pipeline.steps], sample)
    return steps[0] if len(steps) == 1 else Chain(steps)


@compiles_predictor("sklearn.Pipeline")
def compile_chain_predictor(pipeline: Any, sample: Data) -> Predictor:
    """Compiles a pipeline that ends in an estimator."""
    *steps, last = [step for _, step in pipeline.steps]
    compiled, transformed = compile_steps(steps, sample)
    predictor = compile_predictor(last, transformed)
    if not compiled:
        return predictor
    return ChainPredictor(compiled, predictor, count_steps_before_cells(compiled, sample))


@compiles_predictor("sklearn.RFE", "sklearn.RFECV")
def compile_selection_predictor(fitted: Any, sample: Data) -> Predictor:
    """Compiles an estimator on selected features."""
    steps, selected = compile_steps([fitted], sample)
    predictor = compile_predictor(fitted.estimator_, selected)
    return ChainPredictor(steps, predictor, count_steps_before_cells(steps, sample))


@compiles_transformer("sklearn.ColumnTransformer")
def compile_column_transformer(fitted: Any, sample: Data) -> Transformer:
    """Compiles a ColumnTransformer; finds columns by name if it was fitted with names."""
    indices = fitted._transformer_to_input_indices  # noqa: SLF001  # `columns_` of `transformers_` may be callables
    fitted_names = getattr(fitted, "feature_names_in_", None)
    weights = fitted.transformer_weights or {}
    branches: list[tuple[list[int], Transformer, float | None]] = []
    for name, transformer, columns in fitted.transformers_:
        positions = _positions([int(i) for i in indices[name]], fitted_names, sample)
        if transformer == "drop" or not positions:
            continue
        part = select(sample, positions)
        if isinstance(part, Columns) and np.isscalar(columns):
            part = part._replace(is_flat=True)
        step = Identity() if transformer == "passthrough" else compile_transformer(transformer, part)
        branches.append((positions, step, weights.get(name)))
    _check_weights(weights)
    return Branches(
        [b[0] for b in branches],
        [b[1] for b in branches],
        [b[2] for b in branches],
        is_filled=not getattr(fitted, "sparse_output_", False),
    )


def _check_weights(weights: dict[str, Any]) -> None:
    if any(isinstance(weight, np.generic) for weight in weights.values()):
        raise NotCompiled("its weights are NumPy's numbers, which turn float32 into float64")


def _positions(indices: list[int], fitted_names: Any, sample: Data) -> list[int]:
    if not isinstance(sample, Columns) or fitted_names is None:
        return indices
    try:
        return [sample.names.index(str(fitted_names[index])) for index in indices]
    except ValueError:
        raise NotCompiled("a column of the ColumnTransformer is not in its input") from None


@compiles_transformer("sklearn.FeatureUnion")
def compile_feature_union(fitted: Any, sample: Data) -> Transformer:
    """Compiles a FeatureUnion, whose branches take all columns."""
    n_columns = count_columns(sample)
    everything = list(range(n_columns))
    weights = fitted.transformer_weights or {}
    _check_weights(weights)
    parts = [(name, part) for name, part in fitted.transformer_list if part not in ("drop", None)]
    steps = [Identity() if part == "passthrough" else compile_transformer(part, sample) for _, part in parts]
    return Branches([everything] * len(parts), steps, [weights.get(name) for name, _ in parts])
