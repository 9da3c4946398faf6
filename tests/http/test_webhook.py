"""`serving.http.webhook`: only MLflow, with the secret, wakes the sync process."""

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from serving.errors import Forbidden, Unauthorized
from serving.http.webhook import MAX_AGE_SECONDS, check_delivery

BODY = b'{"entity": "model_version_alias", "action": "created", "data": {"name": "wine"}}'
NOW = 1_800_000_000


def signed(secret: str = "hunter2", at: int = NOW, body: bytes = BODY) -> list[tuple[bytes, bytes]]:
    signature = _generate_hmac_signature(secret, "delivery-1", str(at), body.decode())
    return [
        (b"content-type", b"application/json"),
        (b"x-mlflow-signature", signature.encode()),
        (b"x-mlflow-timestamp", str(at).encode()),
        (b"x-mlflow-delivery-id", b"delivery-1"),
    ]


@pytest.mark.parametrize("late", [0, MAX_AGE_SECONDS, -MAX_AGE_SECONDS])
def test_what_mlflow_signs_is_believed(late: int):
    check_delivery(signed(), BODY, "hunter2", NOW + late)


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        (signed("another"), BODY, NOW),
        (signed(), BODY.replace(b"wine", b"beer"), NOW),
        (signed(), BODY, NOW + MAX_AGE_SECONDS + 1),
        (signed(), BODY, NOW - MAX_AGE_SECONDS - 1),
        ([], BODY, NOW),
        ([(b"x-mlflow-signature", b"v1,AAAA")], BODY, NOW),
        ([(n, v.replace(b"v1,", b"v2,")) for n, v in signed()], BODY, NOW),
        ([(n, v.replace(b"v1,", b"v1,!")) for n, v in signed()], BODY, NOW),
        ([(n, b"" if n.endswith(b"signature") else v) for n, v in signed()], BODY, NOW),
        (signed()[:-1], BODY, NOW),
    ],
)
def test_anything_else_is_not(headers: list[tuple[bytes, bytes]], body: bytes, now: int):
    with pytest.raises(Unauthorized) as error:
        check_delivery(headers, body, "hunter2", now)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_nobody_may(secret: str | None):
    with pytest.raises(Forbidden, match="SERVING_WEBHOOK_SECRET"):
        check_delivery(signed(""), BODY, secret, NOW)


def test_a_time_stamp_that_no_clock_shows_is_refused():
    at = "9" * 5000
    signature = _generate_hmac_signature("hunter2", "delivery-1", at, BODY.decode())
    headers = [
        *signed()[:1],
        (b"x-mlflow-signature", signature.encode()),
        (b"x-mlflow-timestamp", at.encode()),
    ]
    with pytest.raises(Unauthorized, match="older than"):
        check_delivery([*headers, (b"x-mlflow-delivery-id", b"delivery-1")], BODY, "hunter2", NOW)
