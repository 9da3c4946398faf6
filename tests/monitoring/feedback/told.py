"""Answered rows, as the store has them."""

import json
from typing import Any

from serving.monitoring.feedback.answers import Answer

NOW = 1_700_000_000.0
DAY = 86_400.0


def answer(request_id: str = "r", row: int = 0, **more: Any) -> Answer:
    """An answer of version 7, which says yes."""
    known: dict[str, Any] = {
        "model": "churn",
        "request_id": request_id,
        "row_index": row,
        "role": "champion",
        "version": "7",
        "time": NOW,
        "key": None,
        "label": "yes",
        "value": None,
        "score": 0.75,
        "probabilities": json.dumps({"no": 0.25, "yes": 0.75}),
        "slices": None,
    }
    return Answer(**known | more)


def number(request_id: str, value: float, **more: Any) -> Answer:
    """An answer of a regression."""
    return answer(request_id, label=None, value=value, score=None, probabilities=None, **more)
