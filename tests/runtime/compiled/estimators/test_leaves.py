import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.estimators import leaves
from serving.runtime.compiled.estimators.leaves import LeafSum, Tree, compile_leaves, round_down
from tests.runtime.compiled.edges import edge_rows
from tests.runtime.compiled.parity import FEW, SEEDS


def random_tree(rng, n_features, dtype=np.float64):
    """A tree that splits by the way of the dice, down to a single leaf."""
    feature, threshold, left, right = [-1], [0.0], [-1], [-1]
    for node in range(int(rng.integers(0, 40))):
        if node >= len(left):
            break
        if rng.random() < 0.3 and len(left) - node > 1:
            continue
        feature[node], threshold[node] = int(rng.integers(n_features)), float(dtype(rng.normal()))
        left[node], right[node] = len(left), len(left) + 1
        for column, value in ((feature, -1), (threshold, 0.0), (left, -1), (right, -1)):
            column += [value, value]
    missing = rng.random(len(left)) < 0.5
    return Tree(np.array(feature), np.array(threshold, dtype=dtype), np.array(left), np.array(right), missing)


def walk(tree, row, strict):
    """The number of the leaf that one row reaches, node by node."""
    node = 0
    while tree.left[node] >= 0:
        value = row[tree.feature[node]]
        if np.isnan(value):
            goes_left = tree.missing_left[node]
        else:
            goes_left = value < tree.threshold[node] if strict else value <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return int(np.flatnonzero(tree.leaves == node)[0])


def chain(depth):
    """A tree whose every left child is a leaf."""
    left = np.full(2 * depth + 1, -1)
    left[0:-1:2] = np.arange(1, 2 * depth, 2)
    right = np.where(left < 0, -1, left + 1)
    nothing = np.zeros(len(left), dtype=int)
    return Tree(nothing, np.arange(len(left)) / 2, left, right, nothing.astype(bool))


@FEW
@given(
    SEEDS, st.sampled_from([(np.float32, False), (np.float64, False), (np.float32, True), (np.float64, True)])
)
def test_the_leaves_are_those_that_a_walk_from_node_to_node_reaches(seed, kind):
    dtype, strict = kind
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(1, 5))
    # Thresholds of float64 under rows of float32 are what scikit-learn has.
    own = np.float32 if strict and dtype is np.float32 else np.float64
    trees = [random_tree(rng, n_features, own) for _ in range(int(rng.integers(1, 12)))]
    finder = compile_leaves(trees, n_features, dtype=dtype, strict=strict)
    thresholds = [
        np.concatenate([tree.threshold[tree.feature == column] for tree in trees])
        for column in range(n_features)
    ]
    rows = edge_rows(rng, rng.normal(size=(9, n_features)), thresholds, missing=True).astype(dtype)
    rows[0] = np.inf
    rows[1] = -np.inf
    starts = np.cumsum([0] + [len(tree.leaves) for tree in trees])
    expected = [[starts[i] + walk(tree, row, strict) for row in rows] for i, tree in enumerate(trees)]
    assert finder.find(rows).tolist() == expected
    assert finder.find(np.asfortranarray(rows)).tolist() == expected
    for position, row in enumerate(rows):
        assert finder.find(row[np.newaxis]).ravel().tolist() == [one[position] for one in expected]


@FEW
@given(SEEDS, st.sampled_from([np.float32, np.float64]), st.integers(1, 4), st.booleans())
def test_leaves_add_up_tree_after_tree(seed, dtype, n_groups, wide):
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, 2) for _ in range(n_groups * int(rng.integers(1, 40)))]
    finder = compile_leaves(trees, 2)
    n_leaves = sum(len(tree.leaves) for tree in trees)
    wide = wide and n_groups == 1
    values = rng.normal(size=(n_leaves, int(rng.integers(1, 12))) if wide else n_leaves).astype(dtype)
    total = LeafSum(finder, values, n_groups)
    for n_rows in (1, 2, 33):
        rows = rng.normal(size=(n_rows, 2)).astype(np.float32)
        found = finder.find(rows)
        expected = np.zeros((n_groups, n_rows) + values.shape[1:], dtype=dtype)
        for index, leaf in enumerate(found):
            expected[index % n_groups] += values[leaf]
        actual = total.sum(rows)
        assert actual.dtype == dtype
        assert np.array_equal(actual, expected if n_groups > 1 else expected[0])


@FEW
@given(st.floats(width=64, allow_nan=False))
def test_a_float32_is_up_to_a_threshold_where_it_is_up_to_the_rounded_one(threshold):
    rounded = round_down(np.array([threshold]))
    assert rounded.dtype == np.float32
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        beside = [np.nextafter(near, np.float32(end)) for end in (-np.inf, np.inf)]
    for value in (near, *beside):
        assert bool(value <= rounded[0]) == bool(np.float64(value) <= threshold)


def test_a_row_of_another_width_is_refused():
    finder = compile_leaves([chain(3)], 2)
    with pytest.raises(ValueError, match="features"):
        finder.find(np.zeros((1, 3), dtype=np.float32))


def test_a_deep_tree_is_found_through_and_one_too_deep_is_not_compiled():
    finder = compile_leaves([chain(leaves.MAX_DEPTH - 1)], 1)
    assert finder.find(np.array([[1e9]], dtype=np.float32)).tolist() == [[leaves.MAX_DEPTH - 1]]
    with pytest.raises(NotCompiled, match="deep"):
        compile_leaves([chain(leaves.MAX_DEPTH + 1)], 1)


def test_more_leaves_than_float32_counts_are_not_compiled(monkeypatch):
    monkeypatch.setattr(leaves, "MAX_LEAVES", 4)
    compile_leaves([chain(3)], 1)
    with pytest.raises(NotCompiled, match="count"):
        compile_leaves([chain(4)], 1)


def test_no_trees_and_a_column_that_is_not_there_are_not_compiled():
    with pytest.raises(NotCompiled):
        compile_leaves([], 1)
    with pytest.raises(NotCompiled, match="column"):
        compile_leaves([chain(3)._replace(feature=np.full(7, 5))], 2)
