"""Promotes a version: moves the alias, waits for services, watches them, and rolls back if it does worse."""

import argparse
import functools
from collections import Counter
from collections.abc import Callable, Collection

from scripts.lifecycle import LifecycleError, NotRecorded, Overtaken, StillThere
from scripts.lifecycle.challenger import Challenger
from scripts.lifecycle.counters import CountSource
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits
from scripts.lifecycle.placement import name_of
from scripts.lifecycle.polling import describe_late, lacks_challenger, lacks_champion, wait_for
from scripts.lifecycle.quality import Question, wait_until_better
from scripts.lifecycle.registry import RegisteredModel
from scripts.lifecycle.retry import retry_put_back
from scripts.lifecycle.services import (
    Answering,
    Refusal,
    Seen,
    answering_with,
    count_answering,
    tell_answering,
)
from scripts.lifecycle.signals import undisturbed
from scripts.lifecycle.validation_record import Results
from scripts.lifecycle.watch import RolledBack, Watch, Watched, check_ours
from serving.monitoring.quality.judgement import Judgement


class Promotion:
    """One promotion, which rolls back unless it succeeds."""

    def __init__(
        self,
        model: RegisteredModel,
        options: argparse.Namespace,
        counts: CountSource,
        limits: Limits,
        say: Callable[[str], None],
        *,
        known: Collection[Refusal],
    ) -> None:
        self._model = model
        self._options = options
        self._counts = counts
        self._known = known
        self._say = say
        self._watch = Watch(options.url, counts.look_seconds, limits, say)
        self._version: str = options.version
        self._before = model.current
        self._why: str = options.why
        self.outcome = f"{model.where} was not moved"
        """Where the alias or the stage is, in words."""
        self.answering: dict[str, Answering] = {}
        """How many addresses answered with the version at the end, by URL."""
        self.judgement: Judgement | None = None
        """Why the version is better (--when-better)."""

    def carry_out(self, results: Results | None) -> None:
        """Promotes the version.

        Raises:
            RolledBack: it failed, and was rolled back.
            Overtaken: somebody else has moved the alias or the challenger; left unchanged.
            StillThere: it failed, and could not be rolled back.
            LifecycleError: the registry refuses, or the version before has no counters to read; nothing was done.
            BaseException: any other, such as Ctrl-C; it was rolled back.
        """
        past = self._counts.past(self._before) if self._before is not None else Counts()
        if not self._options.percent:
            if self._options.when_better:
                past = self._wait_for_verdict(lambda: check_ours(self._model.check_ours))
            self._move(past, results)
            return
        challenger = Challenger(self._model, self._options.challenger_alias, self._version)
        try:
            for percent in self._options.percent:
                watched = self._step(challenger, past, percent)
            if self._options.when_better:
                silent: Counter[str] = Counter()
                past = self._wait_for_verdict(lambda: self._watch.look(watched, silent))
            self._move(past, results)
        except BaseException as error:
            with undisturbed():
                has_changed = self._end(challenger, str(error) or type(error).__name__)
            if (
                has_changed
                and isinstance(error, LifecycleError)
                and error.exit_code == LifecycleError.exit_code
            ):
                raise RolledBack(str(error)) from None
            raise
        with undisturbed():
            self._end(challenger)

    def _move(self, past: Counts, results: Results | None) -> None:
        model, options = self._model, self._options
        since = self._counts.follow(self._version)
        try:
            model.move("promote", self._version, self._why, options.audit_log, results)
            self._say(f"{model.where} went from {name_of(self._before)} to {self._version}")
            lacks = lacks_champion(self._version)
            self._wait(lacks)
            watched = Watched(self._version, lambda: past, since, lacks, model.check_ours)
            self._watch.last(options.watch, watched)
        except BaseException as error:
            with undisturbed():
                has_changed = self._take_back(str(error) or type(error).__name__)
            if has_changed and isinstance(error, LifecycleError):
                raise RolledBack(str(error)) from None
            raise
        self.outcome = f"{model.where} is version {self._version}"
        self.answering = count_answering(options.url, self._version)
        for sentence in tell_answering(self.answering, answering_with(self._version)):
            self._say(sentence)

    def _wait_for_verdict(self, check: Callable[[], object]) -> Counts:
        """Waits until the version is better; returns the counters of the version before.

        Args:
            check: see `wait_until_better`.

        Raises:
            RolledBack: it is worse, or not better in time; nothing was moved.
        """
        options = self._options
        assert self._before is not None
        question = Question(
            self._before, self._version, options.when_better, options.confidence, options.max_wait
        )
        try:
            self.judgement = wait_until_better(question, options.url, self._say, check)
        except RolledBack as reason:
            if not options.percent:
                self._say(f"{self._model.where} stays at {name_of(self._before)}: {reason}")
            raise
        self._say(f"version {self._version} is better: {self.judgement}")
        self._why = "; ".join(filter(None, [options.why, str(self.judgement)]))
        return self._counts.past(self._before)

    def _step(self, challenger: Challenger, past: Counts, percent: float) -> Watched:
        self._model.check_ours()
        challenger.give(percent)
        lacks = lacks_challenger(self._version, percent)
        self._wait(lacks)
        self._say(f"version {self._version} gets {percent:g} % of the requests")
        beside = self._counts.follow(self._before) if self._before is not None else Counts
        since = self._counts.follow(self._version)
        before = functools.partial(_enough_of, beside, past)

        def check_ours() -> None:
            # Somebody who moves production meanwhile may know more than the challenger's counters show.
            self._model.check_ours()
            challenger.check_ours()

        watched = Watched(self._version, before, since, lacks, check_ours)
        self._watch.last(self._options.interval, watched, self._options.max_wait)
        return watched

    def _wait(self, lacks: Callable[[Seen], str]) -> None:
        options = self._options
        late = wait_for(options.url, lacks, options.timeout, self._version, known=self._known, say=self._say)
        if late:
            raise RolledBack(describe_late(late))

    def _take_back(self, why: str) -> bool:
        """Rolls back to the version before; returns False if nothing was moved."""
        model, options = self._model, self._options
        try:
            has_changed = retry_put_back(lambda: model.take_back(why, options.audit_log), self._say)
        except NotRecorded as error:
            self._say(str(error))
            has_changed = True
        except Overtaken as error:
            self.outcome = str(error)
            raise
        except LifecycleError as error:
            there = "STILL AT" if model.has_moved else "MAY BE AT"
            self.outcome = f"{model.selector.kind.upper()} {there} {self._version} ({model.where}): {self._by_hand} ({error})"
            raise StillThere(self.outcome) from None
        if has_changed:
            self.outcome = f"{model.where} was rolled back to {name_of(self._before)}"
            self._say(f"{self.outcome}: {why}")
        return has_changed

    @property
    def _by_hand(self) -> str:
        """What to do by hand if the registry does not answer."""
        name, selector = self._model.name, self._model.selector
        if self._before is None:
            return f"take version {self._version} out of the {selector.kind} {selector.name}"
        return f"run .venv/bin/python scripts/rollback.py --name {name} --{selector.kind} {selector.name} --to {self._before}"

    def _end(self, challenger: Challenger, why: str = "") -> bool:
        """Restores the challenger's alias and share; returns False if they were not changed.

        A failure here is only printed: it does not change which version is in production.

        Args:
            challenger: what was changed.
            why: the promotion has failed; empty if it has not.
        """
        try:
            has_changed = retry_put_back(lambda: challenger.put_back(is_promoted=not why), self._say)
        except Overtaken as error:
            self._say(str(error))
            return True
        except LifecycleError as error:
            self.outcome = f"{self.outcome}; {challenger.left}"
            self._say(f"{challenger.left} ({error})")
            return True
        if has_changed and why:
            self._say(f"the challenger was {'removed' if challenger.is_new else 'restored'}: {why}")
        return has_changed


def _enough_of(beside: Callable[[], Counts], past: Counts) -> Counts:
    """Returns the counters of the other version meanwhile; if these are too few, those from before."""
    meanwhile = beside()
    return meanwhile if meanwhile.requests >= MIN_REQUESTS else past
