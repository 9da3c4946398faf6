"""What a body may be, and what is said of others."""

import json
from pathlib import Path

import pytest

from serving.monitoring.feedback.messages import Feedback, Invalid
from serving.monitoring.feedback.store import Store, open_store
from tests.monitoring.feedback.told import answer, number


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store("sqlite", tmp_path)
    store.add_answers(
        [
            *(answer("one"), answer("two"), answer("two", 1), answer("keyed", key="17")),
            number("price", 3.5),
            answer("three", label="b", probabilities=json.dumps({"a": 0.2, "b": 0.5, "1": 0.3}), version="9"),
        ]
    )
    return store


def body(*entries: object) -> bytes:
    return json.dumps({"feedback": entries}).encode()


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b"", 400, "the body is not JSON"),
        (b'{"feedback": [{"request_id": "a", "truth": NaN}]}', 400, "the body is not JSON"),
        (b'{"feedback": [{"request_id": "\\ud800", "truth": 1}]}', 400, "the body is not JSON"),
        (b'{"feedback": [{"request_id": "\xff", "truth": 1}]}', 400, "the body is not JSON"),
        (
            b'{"feedback": [{"request_id": "a", "truth": 1e999}]}',
            422,
            "feedback[0].truth: number out of range",
        ),
        (b"[]", 422, "the body: expected `object`, got `array`"),
        (b"{}", 422, "the body: object missing required field `feedback`"),
        (
            body({"request_id": "a", "truth": 1, "label": 2}),
            422,
            "feedback[0]: object contains unknown field `label`",
        ),
        (body({"request_id": "a", "truth": [1]}), 422, "feedback[0].truth: expected"),
        (body({"request_id": "a", "truths": 1}), 422, "feedback[0].truths: expected"),
        (body({"truth": 1}), 422, "feedback[0]: expected request_id or key, one of the two"),
        (body({"request_id": "a", "key": "k", "truth": 1}), 422, "feedback[0]: expected request_id or key"),
        (
            body({"request_id": "a", "truth": 1}, {"request_id": "b"}),
            422,
            "feedback[1]: expected truth, or truths",
        ),
        (body({"request_id": "a", "truth": None}), 422, "feedback[0]: expected truth, or truths"),
        (body({"request_id": "a", "truth": 1, "truths": [1]}), 422, "feedback[0]: expected truth, or truths"),
        (body({"key": "k", "row": 1, "truth": 1}), 422, "feedback[0]: row and truths need a request_id"),
        (body({"request_id": "a", "row": 1, "truths": [1]}), 422, "feedback[0]: truths are for all rows"),
        (body({"request_id": "a", "row": -1, "truth": 1}), 422, "feedback[0].row: expected a row's position"),
        (
            body({"request_id": "a", "row": 2**31, "truth": 1}),
            422,
            "feedback[0].row: expected a row's position",
        ),
        (body({"request_id": "", "truth": 1}), 422, "feedback[0].request_id: expected 1 to 1000 characters"),
        (body({"key": "a\0", "truth": 1}), 422, "feedback[0].key: expected 1 to 1000 characters"),
        (
            body({"request_id": "a", "truths": [1] * 200_001}),
            422,
            "the body: expected at most 200,000 truths",
        ),
        (body({"key": "a", "truth": "x" * 1001}), 422, "feedback[0].truth: expected 1 to 1000 characters"),
    ],
)
def test_other_bodies_are_rejected_with_the_place(text: bytes, status: int, message: str):
    with pytest.raises(Invalid) as caught:
        Feedback(text)
    assert str(caught.value).startswith(message)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


def test_truths_of_rows_requests_and_keys(store: Store):
    feedback = Feedback(
        body(
            {"request_id": "one", "truth": "no"},
            {"request_id": "two", "truths": ["yes", "no"]},
            {"request_id": "price", "row": 0, "truth": 3.25},
            {"key": 17, "truth": "yes"},
            {"request_id": "two", "row": 2, "truth": "no"},
            {"key": "nobody", "truth": True},
        )
    )
    assert feedback.keep("churn", store) == {
        "received": 7,
        "matched": 5,
        "unknown": 2,
        "unknown_ids": [{"request_id": "two", "row": 2}, {"key": "nobody"}],
        "new_labels": [],
    }
    assert {(one.request_id, one.row_index): one.truth for one in store.truths("churn")} == {
        ("one", 0): "no",
        ("two", 0): "yes",
        ("two", 1): "no",
        ("price", 0): "3.25",
        ("keyed", 0): "yes",
    }


def test_the_last_of_a_body_counts(store: Store):
    Feedback(body({"request_id": "one", "truth": "no"}, {"request_id": "one", "truth": "yes"})).keep(
        "churn", store
    )
    assert [one.truth for one in store.truths("churn")] == ["yes"]


def test_labels_that_the_version_cannot_predict_are_named(store: Store):
    feedback = Feedback(
        body(
            {"request_id": "one", "truth": "Yes"},
            {"request_id": "three", "truth": 1},
            {"request_id": "unknown", "truth": "elsewhere"},
        )
    )
    assert feedback.keep("churn", store)["new_labels"] == ["Yes"]


@pytest.mark.parametrize("truth", ["cheap", "nan", "-inf", 1e308])
def test_a_number_is_needed_where_one_was_predicted_and_nothing_is_kept_otherwise(
    store: Store, truth: str | float
):
    feedback = Feedback(body({"request_id": "one", "truth": "no"}, {"request_id": "price", "truth": truth}))
    with pytest.raises(Invalid, match=r"feedback\[1\]: expected a number"):
        feedback.keep("churn", store)
    assert store.count_truths("churn") == (0, 0)


def test_only_some_of_many_unknown_ids_are_told(store: Store):
    found = Feedback(body(*({"request_id": f"x{i}", "truth": 1} for i in range(1_000)))).keep("churn", store)
    assert (found["unknown"], len(found["unknown_ids"])) == (1_000, 100)
