"""Authenticates MLflow's webhooks, which wake the sync process.

Source: MLflow's documentation, "Model Registry Webhooks", and mlflow/webhooks/delivery.py: the signature is
`v1,` and the base64 of HMAC-SHA256 over `delivery_id.timestamp.body` with the secret of the webhook.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from serving.errors import Forbidden, Unauthorized

MAX_AGE_SECONDS = 300
"""Maximum difference between a delivery's time stamp and our clock, past or future."""


MAX_DIGITS = 20
"""Of a time stamp in seconds; `int()` rejects thousands of digits."""


def check_delivery(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, secret: str | None, now: float
) -> None:
    """Returns if the body was recently signed with the secret.

    Args:
        headers: of the request, the names in lower case.
        body: as it was received.
        secret: SERVING_WEBHOOK_SECRET.
        now: seconds since 1970.

    Raises:
        Forbidden: no secret is set.
        Unauthorized: the signature is missing, wrong or too old.
    """
    if not secret:
        raise Forbidden("webhooks are disabled; set SERVING_WEBHOOK_SECRET to the secret of MLflow's webhook")
    found = {name: value for name, value in headers if name.startswith(b"x-mlflow-")}
    delivery, timestamp = found.get(b"x-mlflow-delivery-id"), found.get(b"x-mlflow-timestamp")
    version, _, signature = found.get(b"x-mlflow-signature", b"").partition(b",")
    if not delivery or not timestamp or version != b"v1":
        raise Unauthorized("MLflow's signature is missing (X-MLflow-Signature, -Timestamp and -Delivery-Id)")
    expected = hmac.new(secret.encode(), b"%b.%b.%b" % (delivery, timestamp, body), hashlib.sha256).digest()
    if not hmac.compare_digest(expected, _decode(signature)):
        raise Unauthorized("the signature does not match the secret (SERVING_WEBHOOK_SECRET)")
    if not timestamp.isdigit() or len(timestamp) > MAX_DIGITS or abs(now - int(timestamp)) > MAX_AGE_SECONDS:
        raise Unauthorized(
            f"the delivery is older than {MAX_AGE_SECONDS} seconds, or the clocks differ by more"
        )


def _decode(signature: bytes) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except binascii.Error:
        return b""
