"""Whether the trees in a model stay within their arrays.

scikit-learn's compiled code follows a tree's children and features without bounds checks: a crafted file could make a
worker read beyond its arrays, or crash.
"""

from typing import Any

import numpy as np

from serving.errors import ModelRefused
from serving.runtime.pickles import name_of

LEAF = -1
"""Source: sklearn/tree/_tree.pyx, TREE_LEAF."""

TREE = "sklearn.tree._tree.Tree"

FORESTS = ("sklearn.ensemble._forest.", "sklearn.ensemble._gb.", "sklearn.ensemble._iforest.")


def check_trees(part: Any) -> None:
    """Checks one object of a model: a tree, or an estimator that passes its rows to trees.

    Raises:
        ModelRefused: a node refers to a child or a feature that does not exist.
    """
    name = name_of(part)
    if name == TREE:
        left, right = part.children_left, part.children_right
        is_leaf = left == LEAF
        _check(
            np.array_equal(is_leaf, right == LEAF)
            and _are_children(left, right, ~is_leaf)
            and _are_within(part.feature[~is_leaf], part.n_features)
        )
    elif name_of(getattr(part, "tree_", None)) == TREE:
        _check(part.tree_.n_features == part.n_features_in_)
    elif name.startswith(FORESTS) and hasattr(part, "estimators_"):
        # These validate rows once for all trees.
        widths = [len(columns) for columns in getattr(part, "estimators_features_", ())]
        trees = np.ravel(np.array(part.estimators_, dtype=object)).tolist()
        expected = widths or [part.n_features_in_] * len(trees)
        _check(len(expected) == len(trees))
        _check(all(tree.tree_.n_features == n for tree, n in zip(trees, expected, strict=True)))
    elif hasattr(part, "_predictors") and hasattr(part, "n_features_in_"):
        for tree in (tree for trees in part._predictors for tree in trees):  # noqa: SLF001  # no public attribute has them
            _check_histogram_tree(tree, part.n_features_in_)


def _check_histogram_tree(tree: Any, n_features: int) -> None:
    nodes = tree.nodes
    inner = nodes["is_leaf"] == 0
    categorical = inner & (nodes["is_categorical"] != 0)
    n_sets = min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    _check(
        _are_children(nodes["left"], nodes["right"], inner)
        and _are_within(nodes["feature_idx"][inner], n_features)
        and _are_within(nodes["bitset_idx"][categorical], n_sets)
    )


def _are_children(left: Any, right: Any, inner: Any) -> bool:
    """Whether the inner nodes' children exist and come after them, so that each path ends."""
    own = np.flatnonzero(inner)
    children = np.stack([left[inner], right[inner]]).astype(np.int64)
    return len(left) > 0 and bool(((children > own) & (children < len(left))).all())


def _are_within(values: Any, n: int) -> bool:
    return bool(((values >= 0) & (values < n)).all())


def _check(holds: bool) -> None:
    if not holds:
        raise ModelRefused(
            "it holds a tree whose nodes refer to missing children or features; train it and log it again"
        )
