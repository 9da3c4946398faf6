"""Removes credentials from texts that people see: logs, `/readyz`, errors, the scripts' messages."""

import re

MASK = "***"

_URI = re.compile(
    r"(?<![a-z0-9+.\-])(?P<scheme>[a-z0-9][a-z0-9+.\-]{0,60})://(?P<rest>[^\s'\"<>\\`]+)", re.IGNORECASE
)

_ENDS_BEFORE_PATH = re.compile(r"(https?|wss?|ftps?|s3a?|gs|abfss?|wasbs?|hdfs|dbfs|viewfs)", re.IGNORECASE)
"""Schemes whose user name and password end before the first `/`, `?` or `#`. Database drivers split at the last `@`:
a password may contain any of these. Source: `_parse_url` in sqlalchemy/engine/url.py."""

_CONTAINER_BEFORE_HOST = re.compile(
    r"(abfss?|wasbs?|r2|b2)://[^\s/?#@:]+@[^\s/?#@]+([/?#].*)?", re.IGNORECASE
)
"""URIs that have a container or bucket where others have a user: `wasbs://container@account.blob.core.windows.net/`.
Source: mlflow/store/artifact/azure_blob_artifact_repo.py, r2_artifact_repo.py, b2_artifact_repo.py."""

_NO_LOGIN = re.compile(r"(sqlite|file)(\+.*)?", re.IGNORECASE)

_VALUE = re.compile(r"(?<=[\w/.)\]?&;#])(?P<key>[?&;#][\w.~%\-\[\]]{1,100}=)[^\s&;#'\"<>\\`]+")
"""Of a query or the like: `?key=value`, `&key=value`, `;key=value`, `#key=value`."""

_SECRET = re.compile(
    r"(?P<key>(?:password|passwd|pwd|token|secret|api[_-]?key|access[_-]?key)[\w-]{0,60}"
    r"(?:=|['\"]\s?[:=]\s?)['\"]?)[^\s&;,'\"<>\\`]{3,}",
    re.IGNORECASE,
)
"""As drivers and clouds write them: `password=…`, `"token": "…"`."""

_SIGNATURE = re.compile(
    r"(?P<key>signature[\w-]{0,60}(?:=|['\"]\s?[:=]\s?)['\"]?)[A-Za-z0-9+/=%_\-]{8,}+(?![.(])", re.IGNORECASE
)
"""Of a signed request; not the `signature=infer_signature(…)` in our own messages."""

_HEADER = re.compile(
    r"(?P<key>\bauthorization['\"]?\s?[=:]\s?['\"]?)(?:(?:basic|bearer)\s+)?[^\s'\",]+", re.IGNORECASE
)


def redact(text: str) -> str:
    """Returns a URI, or a message that contains some, without credentials.

    URIs lose user names, passwords and query values, including presigned signatures; other text loses the values of
    passwords, tokens and the like.
    """
    text = _URI.sub(_redact_login, text)
    text = _VALUE.sub(rf"\g<key>{MASK}", text)
    text = _SIGNATURE.sub(rf"\g<key>{MASK}", text)
    text = _HEADER.sub(rf"\g<key>{MASK}", text)
    return _SECRET.sub(rf"\g<key>{MASK}", text)


def _redact_login(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    if _NO_LOGIN.fullmatch(scheme) or _CONTAINER_BEFORE_HOST.fullmatch(found[0]):
        return found[0]
    end = len(rest)
    if _ENDS_BEFORE_PATH.fullmatch(scheme):
        authority = re.match(r"[^/?#]*", rest)
        assert authority is not None
        host, _, port = authority[0].rpartition(":")
        # A password with a slash makes the URI invalid, but must be removed all the same.
        if "@" in authority[0] or not host or port.isdigit() or host.startswith("["):
            end = authority.end()
    return f"{scheme}://{rest[:end].rpartition('@')[2]}{rest[end:]}"
