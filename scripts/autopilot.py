"""Makes one move of a service's autopilot. Services start it; it is not for people.

    .venv/bin/python scripts/autopilot.py ORDER      # JSON of `serving.prepare.sync.verdicts.Order`

It does nothing if another process moves now, or if somebody else has moved an alias since the verdict. It prints what it did.
Exit code 0, or 1 with the reason in one line on stderr.
"""

import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.autopilot import carry_out  # noqa: E402  # the same
from serving.monitoring.feedback.databases import StoreError  # noqa: E402  # the same
from serving.monitoring.feedback.store import open_store  # noqa: E402  # the same
from serving.prepare.sync.verdicts import Order  # noqa: E402  # the same
from serving.process.child import lower_priority  # noqa: E402  # the same
from serving.redaction import redact  # noqa: E402  # the same
from serving.settings import SettingsError, load_settings  # noqa: E402  # the same


def main(order: str) -> int:
    """Makes the move; returns the exit code."""
    lower_priority()  # MLflow's client takes seconds and hundreds of MB; a move that was killed is repeated
    try:
        move(msgspec.json.decode(order, type=Order))
    except (LifecycleError, StoreError, SettingsError) as error:
        print(redact(str(error)), file=sys.stderr)
        return 1
    return 0


def move(order: Order) -> None:
    """Makes the move, if no other process moves now.

    Raises:
        LifecycleError: the registry does not answer, or refuses.
        StoreError: the feedback store does not answer.
    """
    settings = load_settings()
    assert settings.feedback_store is not None
    assert settings.log_predictions is not None
    url = settings.feedback_store.get_secret_value()
    with open_store(url, settings.log_predictions) as store, store.moving() as is_ours:
        if is_ours:
            carry_out(order, settings, lambda sentence: print(redact(sentence), flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
