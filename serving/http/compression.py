"""Bodies that a caller has compressed: read within the limit on what comes out."""

import re
import zlib

from serving.codecs.media_types import Body
from serving.errors import MalformedBody, PayloadTooLarge, UnsupportedMedia

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""Source: `wbits` of zlib.decompress."""

_NAME = re.compile(rb"[\w.+ ,-]{1,40}", re.ASCII)


def decompress(body: Body, encoding: bytes, limit: int) -> Body:
    """Returns the body without its `Content-Encoding`; never more than `limit` bytes are made of it.

    `deflate` is the form of zlib, or without its frame, as some clients send it. Source: RFC 9110, section 8.4.1.

    Args:
        body: as it was received.
        encoding: the value of the header.
        limit: bytes.

    Raises:
        UnsupportedMedia: another encoding, or several.
        MalformedBody: it is empty, damaged, breaks off, or is followed by something else.
        PayloadTooLarge: what comes out has more bytes.
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
        got = encoding.decode() if _NAME.fullmatch(encoding) else "that"
        error = UnsupportedMedia(f"a body may have the Content-Encoding gzip or deflate, not {got}")
        error.headers = [(b"accept-encoding", b"gzip, deflate")]
        raise error
    decoder = zlib.decompressobj(form)
    try:
        whole = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise MalformedBody("the body is not what its Content-Encoding says") from None
    if len(whole) > limit:
        raise PayloadTooLarge(f"the body has more than {limit} bytes once decompressed (SERVING_MAX_BODY_MB)")
    if not decoder.eof:
        raise MalformedBody("the compressed body breaks off")
    if decoder.unused_data:
        raise MalformedBody("something follows the compressed body")
    return whole
