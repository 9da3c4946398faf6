"""`serving.http.compression`: what comes out is what went in, and never more than may."""

import gzip
import tracemalloc
import zlib

import pytest

from serving.errors import MalformedBody, PayloadTooLarge, UnsupportedMedia
from serving.http.compression import decompress

BODY = b'{"instances": [1, 2, 3]}' * 100


def raw_deflate(body: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(body) + encoder.flush()


FORMS = [
    (b"gzip", gzip.compress(BODY, mtime=0)),
    (b"X-GZIP", gzip.compress(BODY, mtime=0)),
    (b" deflate ", zlib.compress(BODY)),
    (b"deflate", raw_deflate(BODY)),
    (b"identity", BODY),
]


@pytest.mark.parametrize(("encoding", "sent"), FORMS)
def test_comes_back(encoding, sent):
    assert decompress(sent, encoding, len(BODY)) == BODY


@pytest.mark.parametrize(("encoding", "sent"), FORMS[:-1])
def test_one_byte_more_than_the_limit_is_refused(encoding, sent):
    with pytest.raises(PayloadTooLarge, match="SERVING_MAX_BODY_MB"):
        decompress(sent, encoding, len(BODY) - 1)


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_bomb_does_not_go_off(encoding):
    zeros = bytes(200_000_000)
    bomb = gzip.compress(zeros, 1) if encoding == b"gzip" else zlib.compress(zeros, 1)
    del zeros
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        decompress(bomb, encoding, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize(("encoding", "sent"), FORMS[:-1])
@pytest.mark.parametrize(
    "spoil", [lambda sent: sent[:-9], lambda sent: sent + b"more", lambda sent: b"", lambda sent: BODY]
)
def test_damage_is_noticed(encoding, sent, spoil):
    with pytest.raises(MalformedBody):
        decompress(spoil(sent), encoding, len(BODY))


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "aws-chunked"])
def test_other_encodings_are_named(encoding):
    with pytest.raises(UnsupportedMedia, match=f"gzip or deflate, got {encoding}") as caught:
        decompress(BODY, encoding.encode(), len(BODY))
    assert caught.value.headers == [(b"accept-encoding", b"gzip, deflate")]
