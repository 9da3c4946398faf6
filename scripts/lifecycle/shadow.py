"""The shadow of a model: its alias, its share of the requests, and whether services take it."""

from collections.abc import Callable, Sequence

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.services import Seen, look_at_all


def check_shadows(urls: Sequence[str], alias: str) -> None:
    """Makes sure, before anything is moved, that services take a shadow from the alias.

    Raises:
        LifecycleError: one takes none, or from another alias.
    """
    for url, seen in look_at_all(urls).items():
        followed = seen.aliases.get("shadow", alias)
        if followed != alias:
            raise LifecycleError(
                f"{url} (--url) follows {f'the alias {followed!r}' if followed else 'no alias'} for its shadow; start it "
                f"with SERVING_SHADOW_ALIAS={alias}, or say its alias with --shadow-alias"
            )


def lacks_shadow(version: str | None, percent: float | None) -> Callable[[Seen], str]:
    """Returns what says why a service has not this shadow; nothing if it has.

    Args:
        version: that is to be asked; None if there is to be no shadow.
        percent: of the requests; None if any will do.
    """

    def lacks(seen: Seen) -> str:
        now = seen.versions.get("shadow")
        if now != version:
            return seen.trouble or (f"version {now} is its shadow" if now else "it has no shadow yet")
        if seen.trouble:
            return seen.trouble
        is_share = percent is None or version is None or seen.percents["shadow"] == percent
        return "" if is_share else "the share is another"

    return lacks
