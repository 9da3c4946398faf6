"""The media types that bodies come in, and the bodies."""

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
"""Source: IANA's media types."""

Body = bytes | bytearray
"""A request body: a `bytearray` if it arrived in parts."""


def media_name(content_type: str) -> str:
    """Returns a request's media type, for an error."""
    return content_type if len(content_type) <= 60 and content_type.isascii() else "another one"
