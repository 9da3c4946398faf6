"""Claims about predictions: the model's own example is answered, with the same numbers in every format."""

import json
from collections.abc import Callable
from typing import Any

from scripts.lifecycle import LifecycleError
from scripts.smoke import Broken, NotApplicable
from scripts.smoke.arrays import ARROW, NPY, arrow_to_rows, npy_to_rows, row_of, to_arrow, to_npy
from scripts.smoke.client import Answer
from scripts.smoke.comparison import find_difference, flatten, is_number, numbers_of
from scripts.smoke.run import JSON, SmokeRun

REQUEST_ID = "smoke-test"

MAX_ROWS = 5
"""Of the example; each is also sent alone."""

N_KEYS = 20
"""Routing keys to try until the champion answers."""

PROBABILITY_TOLERANCE = 1e-5
"""Allowed deviation of the sum from 1: libraries that compute in float32 miss it by some 1e-7 per class."""


def example(run: SmokeRun) -> str:
    """The model's own example is answered, in the documented shape."""
    run.instances, source = _read_example(run)
    answer = _ask_champion(run)
    if answer.status != 200:
        hint = "" if run.expected.example else " (another example: --example)"
        raise Broken(f"{answer.error()}{hint}")
    said = answer.json()
    if said["request_id"] != REQUEST_ID or answer.headers.get("X-Request-ID") != REQUEST_ID:
        raise Broken("its request_id is not the X-Request-ID of the request")
    run.answer, predictions = answer, said["predictions"]
    if len(predictions) != len(run.instances):
        raise Broken(f"{len(predictions)} predictions for {len(run.instances)} rows")
    for prediction in predictions:
        _check_shape(prediction, run)
    run.predictions = predictions
    return f"{len(predictions)} rows of {source}"


def _read_example(run: SmokeRun) -> tuple[list[Any], str]:
    if run.expected.example:
        rows, source = run.expected.example
    else:
        answer = run.get("/docs.json")
        is_open = answer.status == 200
        if run.expected.v1_only and not (is_open and answer.media_type == JSON):
            raise LifecycleError(
                f"--v1-only needs --example here: /docs.json, which has the model's example, answers {answer.kind}"
            )
        if not is_open:
            raise Broken(f"/docs.json answers {answer.kind}")
        operation = answer.json()["paths"]["/v1/predict"]["post"]
        rows, source = operation["requestBody"]["content"][JSON]["example"]["instances"], "/docs.json"
        schema = operation["responses"]["200"]["content"][JSON]["schema"]
        run.documented = set(schema["properties"]["predictions"]["items"]["properties"])
    rows = rows[:MAX_ROWS]
    # At least two, so that rows can affect each other.
    return (rows if len(rows) > 1 else rows * 2), source


def _ask_champion(run: SmokeRun) -> Answer:
    """Sends the example with a routing key that reaches the champion, if a challenger shares the requests."""
    for number in range(N_KEYS):
        run.routing = {"X-Routing-Key": f"smoke-test-{number}"}
        answer = run.predict(run.instances, **{"X-Request-ID": REQUEST_ID})
        if answer.headers.get("X-Model-Role") != "challenger":
            break
    return answer


def _check_shape(prediction: dict[str, Any], run: SmokeRun) -> None:
    keys, is_classifier = set(prediction), run.answering["task"] == "classification"
    documented = run.documented or ({"label", "probabilities"} & keys if is_classifier else {"value"})
    if keys != documented or not keys:
        raise Broken(f"a prediction has {_names(keys)}, but documented are {_names(documented)}")
    classes = run.answering["classes"]
    label = prediction.get("label")
    if classes and "label" in keys and not isinstance(label, list) and label not in classes:
        raise Broken(f"the label {label!r:.40} is none of the model's classes")
    if None in numbers_of(prediction):
        raise Broken("a prediction is null")


def _names(keys: set[str]) -> str:
    return ", ".join(sorted(keys)) or "nothing"


def version(run: SmokeRun) -> str:
    """Body and headers of the answer name the same version as `/v1/models`."""
    assert run.answer is not None
    headers = run.answer.headers
    role = headers.get("X-Model-Role", "champion")
    if role not in run.models:
        raise Broken(f"X-Model-Role is {role!r:.40}, and /v1/models has no such role")
    found = run.models[role]
    named = run.answer.json()["model"]
    if named != {"name": found["name"], "version": found["version"]}:
        raise Broken(f"the answer names {named}, but /v1/models {found['name']} {found['version']}")
    if headers.get("X-Model-Version") != found["version"]:
        raise Broken(f"X-Model-Version is {headers.get('X-Model-Version')!r:.40}, not {found['version']!r}")
    return f"version {found['version']} in body and headers ({role})"


def probabilities(run: SmokeRun) -> str:
    """Probabilities are between 0 and 1, of the model's classes, and sum to one."""
    given = [one["probabilities"] for one in run.predictions if "probabilities" in one]
    if not given:
        raise NotApplicable("the model has none")
    names = [_class_name(label) for label in run.answering["classes"]]
    worst = 0.0
    for row in given:
        if list(row) != names:
            raise Broken(f"of the classes {', '.join(row):.60}, not {', '.join(names):.60}")
        if not all(
            is_number(p) and -PROBABILITY_TOLERANCE <= p <= 1 + PROBABILITY_TOLERANCE for p in row.values()
        ):
            raise Broken("one is not between 0 and 1")
        worst = max(worst, abs(sum(row.values()) - 1))
        if worst > PROBABILITY_TOLERANCE:
            raise Broken(f"they sum to {sum(row.values()):.6g}")
    return f"of {len(names)} classes, sum to 1 within {worst:.1g}"


def _class_name(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label)


def rows(run: SmokeRun) -> str:
    """Each row gets the same answer alone and together with others."""
    together = [numbers_of(prediction) for prediction in run.predictions]
    run.alone = together
    if not run.answering["batching"]["rows_are_independent"]:
        raise NotApplicable("this model's rows depend on each other")
    alone = []
    for instance in run.instances:
        answer = run.predict([instance])
        if answer.status != 200:
            raise Broken(f"one row alone: {answer.error()}")
        alone.append(numbers_of(answer.json()["predictions"][0]))
    if difference := find_difference(alone, together):
        raise Broken(f"together {difference} alone")
    run.alone = alone
    return f"{len(alone)} rows alone and together"


def batch_json(run: SmokeRun) -> str:
    """`predict_batch` gives the same numbers in JSON."""
    signature = run.answering["signature"]
    body = json.dumps([row_of(signature, instance) for instance in run.instances]).encode()

    def read(answer: Answer) -> list[list[Any]]:
        return [flatten(row) for row in answer.json()]

    return _check_batch(run, body, JSON, read)


def batch_npy(run: SmokeRun) -> str:
    """`predict_batch` gives the same numbers in `.npy`."""
    _check_plain(run)
    body = to_npy(run.answering["signature"], run.instances)
    return _check_batch(run, body, NPY, lambda answer: npy_to_rows(answer.body))


def batch_arrow(run: SmokeRun) -> str:
    """`predict_batch` gives the same numbers in Arrow."""
    _check_plain(run)
    body = to_arrow(run.answering["signature"], run.instances)
    return _check_batch(run, body, ARROW, lambda answer: arrow_to_rows(answer.body))


def _check_plain(run: SmokeRun) -> None:
    if any(isinstance(one.get("value"), dict) for one in run.predictions):
        raise NotApplicable("the model answers with objects, which only JSON has")


def _check_batch(
    run: SmokeRun, body: bytes, media_type: str, read: Callable[[Answer], list[list[Any]]]
) -> str:
    answer = run.post("/v1/predict_batch", body, media_type)
    if answer.status != 200:
        raise Broken(answer.error())
    if answer.media_type != media_type:
        raise Broken(f"asked in {media_type}, it answers in {answer.media_type}")
    if difference := find_difference(run.alone, read(answer)):
        raise Broken(difference)
    return f"the same {len(run.instances)} rows"
