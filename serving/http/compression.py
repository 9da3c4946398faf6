"""Decompresses request bodies, up to a limit on the decompressed size."""

import re
import zlib

from serving.codecs.media_types import Body
from serving.errors import MalformedBody, PayloadTooLarge, UnsupportedMedia

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""Source: `wbits` of zlib.decompress."""

_NAME = re.compile(rb"[\w.+ ,-]{1,40}", re.ASCII)


def decompress(body: Body, encoding: bytes, limit: int) -> Body:
    """Returns the body without its `Content-Encoding`; never decompresses more than `limit` bytes.

    `deflate` is zlib's format; some clients send it without the frame. Source: RFC 9110, section 8.4.1.

    Args:
        body: as it was received.
        encoding: the value of the header.
        limit: bytes.

    Raises:
        UnsupportedMedia: another encoding, or several.
        MalformedBody: it is empty, damaged, truncated, or has bytes after its end.
        PayloadTooLarge: the decompressed body is larger than `limit`.
    """
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name in (b"gzip", b"x-gzip"):
        form = _GZIP
    elif name == b"deflate":
        has_frame = body[:1] and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
        form = _ZLIB if has_frame else _RAW
    else:
        got = encoding.decode() if _NAME.fullmatch(encoding) else "another one"
        error = UnsupportedMedia(f"expected the Content-Encoding gzip or deflate, got {got}")
        error.headers = [(b"accept-encoding", b"gzip, deflate")]
        raise error
    decoder = zlib.decompressobj(form)
    try:
        whole = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise MalformedBody("the body does not match its Content-Encoding") from None
    if len(whole) > limit:
        raise PayloadTooLarge(f"the decompressed body has more than {limit} bytes (SERVING_MAX_BODY_MB)")
    if not decoder.eof:
        raise MalformedBody("the compressed body is truncated")
    if decoder.unused_data:
        raise MalformedBody("the compressed body has bytes after its end")
    return whole
