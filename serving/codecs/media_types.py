"""The media types that bodies come in, and the bodies."""

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"

Body = bytes | bytearray
"""A request body: a `bytearray` if it arrived in parts."""
