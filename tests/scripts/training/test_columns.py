"""What each column is taken for, and why."""

import numpy as np
import pandas as pd
import pytest

from scripts.training import TrainingError
from scripts.training.columns import column_kinds, find_kind
from scripts.training.run import describe_classes

N = 400
RANDOM = np.random.default_rng(0)


def draw(*values):
    return [str(value) for value in RANDOM.choice(values, N)]


NOUNS, WORDS = ("room", "staff", "price", "food"), ("lovely", "late", "rude", "clean", "noisy")

KINDS = {
    "ids from 100001": ("id", range(100_001, 100_001 + N), "left out", "its name, and 400 distinct integers"),
    "ids in any order": ("customer_id", RANDOM.permutation(N) * 7 + 3, "left out", "its name"),
    "ids in French": ("N° client", RANDOM.permutation(N) * 7 + 3, "left out", "its name"),
    "ids in German": ("Kundennummer", RANDOM.permutation(N) * 7 + 3, "left out", "its name"),
    "distinct numbers of something": ("note_totale", RANDOM.permutation(N) * 7 + 3, "number", "whole numbers"),
    "ids with blanks": ("orderID", [None, *range(5, N + 4)], "left out", "its name"),
    "ids that return": ("shop_id", RANDOM.integers(1, 30, N), "number", "whole numbers from 1 to 29"),
    "numbered rows": ("record", range(7_000, 7_000 + N), "left out", "it numbers the rows from 7000 to 7399"),
    "numbered rows with gaps": ("record", np.sort(RANDOM.choice(600, N, replace=False)), "left out", "numbers the rows"),
    "counted rows": ("any", range(1, N + 1), "left out", "it counts the rows from 1"),
    "an index": ("Unnamed: 0", RANDOM.permutation(N), "left out", "the index that the table was saved with"),
    "seconds since 1970": ("ts", np.sort(RANDOM.integers(1.6e9, 1.7e9, N)), "number", "whole numbers"),
    "distinct amounts": ("balance", RANDOM.permutation(N) * 11, "number", "whole numbers from 0 to 4389"),
    "measurements": ("paid", RANDOM.normal(size=N), "number", "numbers from"),
    "codes": ("code", [f"c-{i}" for i in range(N)], "left out", "400 distinct values in 400 rows (override: --text"),
    "mails": ("mail", [f"{word}.{i}@a.example" for i, word in enumerate(draw(*WORDS))], "left out", "identifier"),
    "names": ("name", [f"{a} {b}{i}" for i, (a, b) in enumerate(zip(draw("Ann", "Bo"), draw("x", "y"), strict=True))], "left out", ""),
    "reviews": (
        "review",
        [f"the {a} was {b}, {i}" for i, (a, b) in enumerate(zip(draw(*NOUNS), draw(*WORDS), strict=True))],
        "text",
        "400 distinct texts of 5 words on average",
    ),
    "texts of nothing but new words": (
        "noise",
        [" ".join("".join(RANDOM.choice(list("abcdefghij"), 9)) for _ in range(4)) for _ in range(N)],
        "left out",
        "identifier",
    ),
    "few long texts": ("plan", draw("credit card (automatic)", "bank transfer (automatic)"), "category", "2 distinct"),
    "many cities": ("city", draw(*(f"c{i}" for i in range(150))), "category", "each of the 99 commonest"),
    "flags": ("flag", [True, None] * (N // 2), "number", "true or false"),
    "one value": ("same", ["k"] * N, "left out", "one value throughout"),
    "empty": ("void", [None] * N, "left out", "empty"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "values", "kind", "why"), KINDS.values(), ids=list(KINDS))
def test_column_is_what_it_looks_like(name, values, kind, why):
    found, reason = find_kind(pd.Series(list(values), name=name))
    assert found == kind
    assert why in reason


def test_what_is_said_of_a_column_goes_before_what_it_looks_like():
    features = pd.DataFrame(
        {
            "id": range(N),
            "shop": RANDOM.integers(1, 30, N),
            "code": [f"c-{i}" for i in range(N)],
            "city": draw("a", "b"),
            "paid": RANDOM.normal(size=N),
        }
    )
    kinds = column_kinds(features, {"id": "number", "shop": "category", "code": "text", "paid": "drop"})
    assert kinds.numbers == ["id"]
    assert kinds.codes == ["shop"]
    assert kinds.texts == ["code"]
    assert kinds.categories == ["city"]
    assert kinds.left_out == ["paid"]
    assert kinds.why["shop"] == "--category, 29 distinct numbers"


@pytest.mark.parametrize(("said", "values"), [("text", range(N)), ("number", draw("a", "b"))])
def test_kind_that_preprocessing_rules_out_is_refused(said, values):
    with pytest.raises(TrainingError, match=f"^column 'x' cannot be a {said}: preprocessing.py returns"):
        column_kinds(pd.DataFrame({"x": values}), {"x": said})


def test_classes_that_differ_in_case_only_are_told():
    lines = describe_classes(pd.Series(["oui"] * 5 + ["non"] * 3 + ["Oui", " oui"]))
    assert lines[0] == "classes: 'oui' 5, 'non' 3, 'Oui' 1, ' oui' 1"
    assert lines[1:] == ["warning: 'oui', 'Oui', ' oui' are different classes; should they be one?"]
    assert describe_classes(pd.Series([1, 2, 2])) == ["classes: 2 2, 1 1"]
