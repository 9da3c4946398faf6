"""Why a service does not follow yet."""

from scripts.lifecycle.polling import lacks_champion
from scripts.lifecycle.services import Seen


def test_why_the_service_does_not_follow_is_handed_on():
    lacks = lacks_champion("2")
    assert lacks(Seen({"champion": "2"}, {})) == ""
    assert lacks(Seen({"champion": "1"}, {})) == "it answers with version 1"
    behind = Seen({"champion": "1"}, {}, stale="the artifacts of version 2 cannot be fetched")
    assert lacks(behind) == "it answers with version 1: the artifacts of version 2 cannot be fetched"
