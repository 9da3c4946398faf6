"""Why a service does not follow yet."""

from scripts.lifecycle.polling import lacks_challenger, lacks_champion, lacks_shadow
from scripts.lifecycle.services import Seen


def test_why_the_service_does_not_follow_is_handed_on():
    lacks = lacks_champion("2")
    assert lacks(Seen({"champion": "2"}, {})) == ""
    assert lacks(Seen({"champion": "1"}, {})) == "it answers with version 1"
    behind = Seen({"champion": "1"}, {}, stale="the artifacts of version 2 cannot be fetched")
    assert lacks(behind) == "it answers with version 1: the artifacts of version 2 cannot be fetched"


def test_why_a_challenger_or_a_shadow_is_not_there_is_handed_on():
    seen = Seen(
        {"champion": "1"}, {}, held_back={"challenger": "its bucket is not there", "shadow": "it is slow"}
    )
    for missing in (lacks_challenger("2", 5)(seen), lacks_shadow("2", None)(seen)):
        assert missing in seen.held_back.values()
        assert seen.explains(missing)
    assert not seen.explains(lacks_champion("2")(seen))
