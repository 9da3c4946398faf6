"""The annotation in which a canary records its progress on the object that it moves, for the next run."""

import os
import time

import msgspec

from scripts.lifecycle import Overtaken
from scripts.rollout.cluster import Document

NOTE = "model-server/canary"
"""Name of the annotation, from which the next run resumes or rolls back."""


class Note(msgspec.Struct, frozen=True):
    """Contents of the annotation."""

    run: str
    """The run that wrote it; a run whose note is gone stops."""
    names: tuple[str, str]
    """The stable side and the canary."""
    before: tuple[int, int]
    """Their weights, or replicas, before the canary."""
    percent: int
    """Share last given to the canary."""
    is_done: bool = False
    """True after the last step has passed."""


def new_run() -> str:
    """Returns a unique name for this run."""
    return f"{os.getpid()}-{time.time_ns()}"


def read_note(document: Document) -> Note | None:
    """Returns the note of an object; None if it is missing or unreadable."""
    text = document["metadata"].get("annotations", {}).get(NOTE)
    try:
        return None if text is None else msgspec.json.decode(text, type=Note)
    except msgspec.MsgspecError:
        return None


def annotate(note: Note | None) -> Document:
    """Returns the metadata patch that writes the note, or removes it."""
    text = None if note is None else msgspec.json.encode(note).decode()
    return {"annotations": {NOTE: text}}


def check_run(note: Note | None, run: str, title: str) -> Note:
    """Returns the note of an object if this run wrote it.

    Raises:
        Overtaken: it was replaced or removed since.
    """
    if note is None or note.run != run:
        raise Overtaken(f"{title}: another canary has taken it over; left unchanged")
    return note
