"""Moves of an alias or a legacy stage: who, when, from which version to which, and why.

Each is a tag of the version that was moved to, and a line in an audit log:

    serving.move.20260102T030405.678901Z = {"at": …, "who": …, "kind": "promote", "alias": …, "from": …, "to": …}
"""

import datetime as dt
import getpass
import os
import socket
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.validation_record import Results

TAG_PREFIX = "serving.move."
"""Prefix of a version's tags that hold moves."""


MAX_TAG_CHARACTERS = 5000
"""Of a tag's value. Source: MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH in mlflow/utils/validation.py. It is 100,000 in
MLflow 3, but this in older servers that are still in use; and services read these tags at every poll."""

MAX_WHY_CHARACTERS = 500
"""Of the reason in a tag. The audit log has it in full."""


class Selector(NamedTuple):
    """What services choose their version by: an alias, or a legacy stage."""

    kind: Literal["alias", "stage"]
    name: str

    def of(self, model: str) -> str:
        """Returns model and selector as at the end of MLflow's `models:/` URIs."""
        return f"{model}@{self.name}" if self.kind == "alias" else f"{model}/{self.name}"


class Move(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """One move of an alias or a stage."""

    at: str
    """ISO 8601, UTC."""
    who: str
    kind: str
    """`promote`, `rollback` or `shadow`."""
    model: str
    alias: str | None
    """None if a stage was moved."""
    source: str | None
    """The version before the move; None if there was none."""
    target: str | None
    """The version after the move; None if the first one was removed."""
    why: str = ""
    results: Results | str | None = None
    """Of the validation before the move; a line of text in old records."""
    stage: str | None = None

    @property
    def selector(self) -> Selector:
        """What was moved."""
        return Selector("alias", self.alias or "") if self.stage is None else Selector("stage", self.stage)

    @property
    def tag(self) -> str:
        """The name of its tag; names sort in chronological order."""
        moment = dt.datetime.fromisoformat(self.at).astimezone(dt.UTC)
        return f"{TAG_PREFIX}{moment:%Y%m%dT%H%M%S.%fZ}"


def new_move(
    kind: str,
    model: str,
    selector: Selector,
    *,
    source: str | None,
    target: str | None,
    why: str,
    results: Results | None = None,
) -> Move:
    """Returns a move made now by this user."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    alias, stage = (selector.name, None) if selector.kind == "alias" else (None, selector.name)
    # Invalid UTF-8 from the shell must not fail after the move has been made.
    why = why.encode(errors="replace").decode()
    return Move(now, who(), kind, model, alias, source, target, why, results, stage)


def who() -> str:
    """Returns `user@host`; in CI, the user is the one that it reports."""
    try:
        user = os.environ.get("GITHUB_ACTOR") or os.environ.get("GITLAB_USER_LOGIN") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def encode(move: Move) -> str:
    """Returns its line in the audit log."""
    return msgspec.json.encode(move).decode()


def encode_tag(move: Move) -> str:
    """Returns the value of its tag, with as many checks of the validation as fit, and a shortened reason."""
    if len(move.why) > MAX_WHY_CHARACTERS:
        move = msgspec.structs.replace(move, why=f"{move.why[: MAX_WHY_CHARACTERS - 1]}…")
    results = move.results
    if not isinstance(results, Results) or len(encode(move)) <= MAX_TAG_CHARACTERS:
        return encode(move)

    def with_checks(n_checks: int) -> str:
        return encode(msgspec.structs.replace(move, results=results.cut(n_checks)))

    n_too_many = bisect_left(
        range(len(results.checks)), True, key=lambda n: len(with_checks(n)) > MAX_TAG_CHARACTERS
    )
    return with_checks(max(0, n_too_many - 1))


def read_moves(tags: Iterable[Mapping[str, str]]) -> list[Move]:
    """Returns the moves among the tags of versions, in chronological order."""
    found: dict[str, Move] = {}
    for of_version in tags:
        for name, value in of_version.items():
            if name.startswith(TAG_PREFIX):
                try:
                    found[name] = msgspec.json.decode(value, type=Move)
                except msgspec.MsgspecError:
                    continue  # written by hand, or by a later version of this
    return [found[name] for name in sorted(found)]


def previous_version(moves: Sequence[Move], selector: Selector, current: str) -> str | None:
    """Returns the version that the current one replaced when it was promoted; None if that is unknown.

    Rollbacks do not count: two in a row lead two versions back, not to the one that was left. The registry keeps no
    order of moves, so the clocks of the machines that made them decide: if the same version was promoted twice over
    different versions, and the clocks differ by more than the time between, the wrong one may be returned.
    """
    for move in reversed(moves):
        if move.selector == selector and move.kind == "promote" and move.target == current:
            return move.source
    return None


def check_appendable(file: Path) -> None:
    """Checks that a line can be added to the audit log, which is created if needed.

    Raises:
        LifecycleError: it cannot.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
    except OSError as error:
        raise LifecycleError(f"the audit log {file} cannot be written: {error.strerror or error}") from None


def append(file: Path, move: Move) -> None:
    """Adds a line to the audit log in one write, and syncs it to the disk.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, encode(move).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
