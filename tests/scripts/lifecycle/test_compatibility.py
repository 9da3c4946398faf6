"""`scripts/promote.py` and versions that refuse requests which services answer now."""

from scripts import promote
from tests.support.fake_service import FakeService, Run
from tests.support.promotions import NAME, Registry, another_signature


def tag_of(registry: Registry, version: str) -> str | None:
    return registry.client.get_model_version(NAME, version).tags.get("serving.force")


def test_a_version_that_refuses_requests_is_promoted_only_by_force(
    registry: Registry, service: FakeService, run: Run
):
    wide = registry.add(another_signature)
    assert run(promote, wide, "--url", service.url) == (
        2,
        "",
        f"promote.py: version {wide} rejects requests that version 1 in production accepts: it requires the column "
        "'region'; tell the callers, then promote it with --force\n",
    )
    assert run(promote, wide, "--force", "--dry-run")[0] == 0
    assert (registry.aliases, tag_of(registry, wide)) == ({"production": "1"}, None)
    assert run(promote, wide, "--force", "--url", service.url)[0] == 0
    assert (registry.aliases, tag_of(registry, wide)) == ({"production": wide}, "true")
    assert run(promote, "2")[0] == 2, "a row has a column less"
    assert run(promote, "1")[0] == 0, "it has answered these callers"
    assert run(promote, wide)[0] == 0, "the tag stays"


def test_a_version_that_was_moved_by_hand_is_forced_where_it_is(registry: Registry, run: Run):
    wide = registry.add(another_signature)
    registry.promote(wide)
    code, out, _ = run(promote, wide, "--force")
    assert (code, tag_of(registry, wide)) == (0, "true")
    assert f"is version {wide} already" in out


def test_a_version_without_a_known_signature_is_left_to_the_services(
    registry: Registry, run: Run, monkeypatch
):
    def fail(*_: object) -> None:
        raise OSError("the artifact store does not answer")

    wide = registry.add(another_signature)
    monkeypatch.setattr("mlflow.models.get_model_info", fail)
    assert run(promote, wide)[0] == 0
