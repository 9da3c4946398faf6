"""Decision trees: the leaf of each tree that a row reaches, and the sum of the leaves' values.

onnxruntime only walks the trees: its ensemble has one output per tree, and each leaf's weight is its number. NumPy
looks up the leaves' values and adds them in the library's precision and order, so the sums equal the library's
to the last bit.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import Node

MAX_LEAVES = 2**24
"""The operator returns float32, which is exact for integers up to here."""

MAX_DEPTH = 2000
"""onnxruntime reads trees recursively; a deeper one might overflow its stack."""


class Tree(NamedTuple):
    """The nodes of one tree, root first; a leaf's children are -1, its other entries are ignored."""

    feature: npt.NDArray[np.integer[Any]]
    """The column that a node compares; shape `(n_nodes,)`, as all fields."""
    threshold: npt.NDArray[np.floating[Any]]
    """A value up to it (in a strict ensemble, below it) goes left."""
    left: npt.NDArray[np.integer[Any]]
    right: npt.NDArray[np.integer[Any]]
    missing_left: npt.NDArray[np.bool_]
    """Whether NaN goes left."""

    @property
    def leaves(self) -> npt.NDArray[np.intp]:
        """The leaves in the order of their numbers."""
        return np.flatnonzero(np.asarray(self.left) < 0)


@dataclass
class LeafFinder(Node):
    """Finds the leaf of each tree that a row reaches; leaf numbers run through all trees."""

    model: bytes | Path
    """The trees in onnxruntime's own format, which takes the least memory; once read back, their file."""
    n_features: int
    split_features: npt.NDArray[np.int32]
    """The column of each split."""
    split_thresholds: npt.NDArray[np.floating[Any]]
    """The value of each split."""
    _run: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import onnxruntime  # type: ignore[import-untyped]  # it ships no types

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors
        # An arena would keep the memory of the largest request.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.load_model_format", "ORT")
        model = self.model if isinstance(self.model, bytes) else str(self.model)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._run = session.run

    def find(self, matrix: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
        """Returns the leaves, shape `(n_trees, n_rows)`.

        Args:
            matrix: shape `(n_rows, n_features)`, in the dtype that the finder was made for.

        Raises:
            ValueError: another number of columns; onnxruntime would read beyond the row.
        """
        if matrix.shape[1] != self.n_features:
            raise ValueError(f"X has {matrix.shape[1]} features, but {self.n_features} are expected")
        leaves = self._run(["leaves"], {"X": matrix})[0]
        return leaves.T.astype(np.intp, order="C")  # type: ignore[no-any-return]


@dataclass
class LeafSum(Node):
    """Sums the leaves that a row reaches, tree by tree."""

    finder: LeafFinder
    values: npt.NDArray[np.floating[Any]]
    """Shape `(n_leaves,)`, or `(n_leaves, n_outputs)` with one value per class in a leaf."""
    n_groups: int = 1
    """Trees belong in turn to the groups 0, 1, …, each with its own sum: one per class."""

    def sum(self, matrix: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Returns shape `(n_rows,)`, `(n_rows, n_outputs)`, or `(n_groups, n_rows)` for several groups."""
        leaves = self.finder.find(matrix)
        values = self.values.take(leaves, axis=0)
        if self.n_groups > 1:
            values = values.reshape(-1, self.n_groups, leaves.shape[1])
        if leaves.shape[1] == 1:
            # NumPy adds contiguous values pairwise; only `accumulate` goes from left to right.
            # Source: numpy/_core/src/umath/loops_utils.h.src, pairwise sum.
            return np.add.accumulate(values, axis=0)[-1]  # type: ignore[no-any-return]
        # Over the first axis, NumPy adds whole rows in order.
        return np.add.reduce(values, axis=0)  # type: ignore[no-any-return]


def compile_leaves(
    trees: list[Tree], n_features: int, *, dtype: type[np.floating[Any]] = np.float32, strict: bool = False
) -> LeafFinder:
    """Returns a leaf finder.

    Args:
        trees: the trees.
        n_features: columns of the matrix.
        dtype: of the matrix; more precise thresholds are rounded so that every value of this dtype goes the same
            way.
        strict: whether a value equal to the threshold goes right.

    Raises:
        NotCompiled: no trees, too many leaves, or too deep a tree.
    """
    if not trees:
        raise NotCompiled("there are no trees")
    if sum(len(tree.leaves) for tree in trees) > MAX_LEAVES:
        raise NotCompiled("the trees have more leaves than float32 can count")
    if any(_is_deep(tree) for tree in trees):
        raise NotCompiled("a tree is too deep")
    is_leaf = [np.asarray(tree.left) < 0 for tree in trees]
    for tree, leaf in zip(trees, is_leaf, strict=True):
        features = np.asarray(tree.feature)[~leaf]
        if len(features) and not 0 <= features.min() <= features.max() < n_features:
            raise NotCompiled("a tree splits on a column that does not exist")
    model = _to_ort(_serialise(trees, is_leaf, n_features, dtype, strict=strict))
    splits = [(tree.feature[~leaf], tree.threshold[~leaf]) for tree, leaf in zip(trees, is_leaf, strict=True)]
    return LeafFinder(
        model,
        n_features,
        np.concatenate([features for features, _ in splits]).astype(np.int32),
        np.concatenate([thresholds for _, thresholds in splits]),
    )


def round_down(thresholds: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Returns the largest float32 up to each number; the same float32 values are up to either."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > thresholds, below, rounded)


def _is_deep(tree: Tree) -> bool:
    left, right = np.asarray(tree.left), np.asarray(tree.right)
    level = np.zeros(1, dtype=np.intp)
    for _ in range(MAX_DEPTH):
        level = level[left[level] >= 0]
        if not len(level):
            return False
        level = np.concatenate([left[level], right[level]])
    return True


def _to_ort(model: bytes) -> bytes:
    """Returns an ONNX model in onnxruntime's format.

    It would keep an ONNX model's attributes beside its own copy: for 240,000 nodes 45 MB instead of 9.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A model optimized for this processor may not run on another.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ort"
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return file.read_bytes()


def _serialise(
    trees: list[Tree],
    is_leaf: list[npt.NDArray[np.bool_]],
    n_features: int,
    dtype: type[np.floating[Any]],
    *,
    strict: bool,
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    sizes = [len(leaf) for leaf in is_leaf]
    leaf = np.concatenate(is_leaf)
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])

    def of_branches(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.where(leaf, 0, np.concatenate(parts))

    thresholds = of_branches([np.asarray(tree.threshold) for tree in trees])
    if dtype is np.float32 and thresholds.dtype != np.float32:
        assert not strict
        thresholds = round_down(thresholds)
    missing = of_branches([np.asarray(tree.missing_left) for tree in trees]).astype(np.int64)
    branch = "BRANCH_LT" if strict else "BRANCH_LEQ"
    attributes: dict[str, Any] = {
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_featureids": of_branches([np.asarray(tree.feature) for tree in trees]).tolist(),
        "nodes_modes": ["LEAF" if is_one else branch for is_one in leaf.tolist()],
        "nodes_truenodeids": of_branches([np.asarray(tree.left) for tree in trees]).tolist(),
        "nodes_falsenodeids": of_branches([np.asarray(tree.right) for tree in trees]).tolist(),
        "target_treeids": tree_ids[leaf].tolist(),
        "target_nodeids": node_ids[leaf].tolist(),
        "target_ids": tree_ids[leaf].tolist(),
        "n_targets": len(trees),
    }
    if missing.any():
        attributes["nodes_missing_value_tracks_true"] = missing.tolist()
    numbers = np.arange(int(leaf.sum()), dtype=dtype)
    if dtype is np.float32:
        attributes |= {"nodes_values": thresholds.tolist(), "target_weights": numbers.tolist()}
        element = TensorProto.FLOAT
    else:
        attributes["nodes_values_as_tensor"] = numpy_helper.from_array(thresholds.astype(dtype))
        attributes["target_weights_as_tensor"] = numpy_helper.from_array(numbers)
        element = TensorProto.DOUBLE
    node = helper.make_node("TreeEnsembleRegressor", ["X"], ["leaves"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "leaves",
        [helper.make_tensor_value_info("X", element, [None, n_features])],
        [helper.make_tensor_value_info("leaves", TensorProto.FLOAT, [None, len(trees)])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()  # type: ignore[no-any-return]
