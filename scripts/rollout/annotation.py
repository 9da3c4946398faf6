"""What a canary writes down about itself, at the object that it moves, for the run that comes after it."""

import os
import time

import msgspec

from scripts.lifecycle import Overtaken
from scripts.rollout.cluster import Document

NOTE = "model-server/canary"
"""The annotation that says what a canary has done, so that the next run can go on or put it back."""


class Note(msgspec.Struct, frozen=True):
    """What that annotation holds."""

    run: str
    """Which run wrote it; another one that finds its own gone stops."""
    names: tuple[str, str]
    """Of the stable side and the canary."""
    before: tuple[int, int]
    """What they had before: weights, or replicas."""
    percent: int
    """That the canary was given last."""
    is_done: bool = False
    """The last step was found good, too."""


def new_run() -> str:
    """Returns a name for this run that no other has."""
    return f"{os.getpid()}-{time.time_ns()}"


def read_note(document: Document) -> Note | None:
    """Returns the note of an object; None where it has none that can be read."""
    text = document["metadata"].get("annotations", {}).get(NOTE)
    try:
        return None if text is None else msgspec.json.decode(text, type=Note)
    except msgspec.MsgspecError:
        return None


def annotate(note: Note | None) -> Document:
    """Returns the change of an object's metadata that writes the note, or takes it away."""
    text = None if note is None else msgspec.json.encode(note).decode()
    return {"annotations": {NOTE: text}}


def check_run(note: Note | None, run: str, title: str) -> Note:
    """Returns the note of an object where this run wrote it.

    Raises:
        Overtaken: another one did since, or took it away.
    """
    if note is None or note.run != run:
        raise Overtaken(f"{title}: another canary has taken it over; it is left as it is")
    return note
