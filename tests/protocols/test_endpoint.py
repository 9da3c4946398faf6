"""`serving.protocols.endpoint`: what of a request is done beside the event loop."""

import sys

from serving.codecs.media_types import ARROW, JSON
from serving.process.in_flight import Claim, InFlight
from serving.protocols import endpoint


def request(media_type: str, body: bytes = b"x") -> endpoint.Request:
    return endpoint.Request(body, media_type, "", endpoint.never, Claim(InFlight(1)))


def test_the_first_arrow_body_is_read_in_a_thread_whatever_its_length(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyarrow.compute", raising=False)
    assert endpoint._decoding_bytes(request(ARROW)) == endpoint.LARGE_BODY_BYTES
    assert endpoint._decoding_bytes(request(JSON)) == 1
    monkeypatch.setitem(sys.modules, "pyarrow.compute", sys)
    assert endpoint._decoding_bytes(request(ARROW)) == 1
