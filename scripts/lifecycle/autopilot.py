"""One move of a service's autopilot: what its verdict says, if the registry still names the versions that were judged."""

from collections.abc import Callable

from scripts.lifecycle import LifecycleError, NotRecorded, Overtaken
from scripts.lifecycle.moves import Selector
from scripts.lifecycle.permissions import check_may_remove_aliases
from scripts.lifecycle.registry import RegisteredModel
from serving.prepare.sync.verdicts import Order
from serving.settings import Settings


def carry_out(order: Order, settings: Settings, say: Callable[[str], None]) -> None:
    """Promotes the version if it is better, and removes its alias as challenger or shadow in any case.

    Only one process may do this at a time. It does nothing if somebody else has moved an alias since the verdict. A promotion
    whose process was killed is resumed: the alias of the challenger or shadow is still to be removed then.

    Args:
        order: the verdict.
        settings: of the service; name the aliases.
        say: prints a sentence about what was done.

    Raises:
        LifecycleError: the registry does not answer, or refuses.
    """
    alias = settings.challenger_alias if order.role == "challenger" else settings.shadow_alias
    if alias is None:
        return
    name = settings.model_name
    production = RegisteredModel(settings, name, Selector("alias", settings.model_alias))
    contender = RegisteredModel(settings, name, Selector("alias", alias))
    is_better, is_promoted = order.outcome == "better", production.current == order.contender
    if contender.current != order.contender or not (
        production.current == order.champion or (is_better and is_promoted)
    ):
        return
    check_may_remove_aliases(contender)
    why = f"autopilot: {order.why}"
    try:
        if is_better and not is_promoted:
            _recorded(lambda: production.move("promote", order.contender, why, None), say)
            say(f"{production.where} went from version {order.champion} to {order.contender}: {order.why}")
        _recorded(lambda: contender.remove("promote" if is_better else "rollback", why, None), say)
        say(f"{contender.where} was removed (version {order.contender}): {order.why}")
    except Overtaken:
        return
    if is_better and not is_promoted:
        try:
            called = production.call(order.contender, None)
        except LifecycleError as error:  # the promotion itself is done
            called = str(error)
        if called:
            say(called)


def _recorded(move: Callable[[], None], say: Callable[[str], None]) -> None:
    """Makes a move; says so if it was made, and could not be recorded."""
    try:
        move()
    except NotRecorded as error:
        say(str(error))
