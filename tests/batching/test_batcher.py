"""`serving.batching.batcher`: who waits, who shares a call, and who gets which answer."""

import asyncio
import contextlib
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching.batcher import Batcher, forget_frames
from serving.batching.policy import INLINE_SECONDS, TURN_SECONDS, Costs, Policy, choose_policy, measure_costs
from serving.errors import ClientGone, ModelBusy, QueueFull, TimedOut
from serving.model.schema import Inputs
from serving.runtime import Output

CHEAP = Costs({1: 0.00005, 8: 0.0001, 64: 0.0004, 512: 0.003})
DEAR = Costs({1: 0.008, 8: 0.0085, 64: 0.012, 512: 0.04})


def policy(**changes: Any) -> Policy:
    fields: dict[str, Any] = {
        "batches": True,
        "inline_rows": 0,
        "turn_rows": 0,
        "max_batch_rows": 64,
        "max_queued_requests": 100,
        "gather_seconds": 0.01,
        "timeout_seconds": 60,
    }
    return Policy(**fields | changes)


class Unobserved:
    """Metrics that only remember."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.waits: list[float] = []

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def called(self, n_rows: int) -> None:
        self.calls.append(n_rows)


class Doubler:
    """A model that doubles numbers, remembers its calls, and can be held while it works."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.may_work = threading.Event()
        self.may_work.set()

    def __call__(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        self.calls.append(inputs.columns[0].tolist())
        self.may_work.wait(10)
        if (inputs.columns[0] < 0).any():
            raise ValueError("negative")
        return Output(values=inputs.columns[0] * params.get("factor", 2))


def rows(*numbers: float) -> Inputs:
    return Inputs((np.array(numbers, dtype=np.float64),), len(numbers))


async def stays() -> None:
    await asyncio.Event().wait()


def run(
    scenario: Callable[[Batcher, Doubler, Unobserved], Awaitable[Any]], **changes: Any
) -> tuple[Any, Doubler, Unobserved]:
    model, observed = Doubler(), Unobserved()
    batcher = Batcher(model, policy(**changes), observed)

    async def main() -> Any:
        try:
            return await asyncio.wait_for(scenario(batcher, model, observed), 20)
        finally:
            model.may_work.set()
            batcher.close()

    return asyncio.run(main()), model, observed


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what is waited for happens in a thread
        await asyncio.sleep(0.001)


async def hold(batcher: Batcher, model: Doubler) -> "asyncio.Task[Output]":
    """Makes the model work on a first request until `may_work` is set."""
    model.may_work.clear()
    first = asyncio.ensure_future(batcher.predict(rows(0), {}, stays))
    await until(lambda: len(model.calls) == 1)
    return first


def test_a_request_that_costs_little_is_answered_without_a_queue():
    async def scenario(batcher, model, observed):
        coroutine = batcher.predict(rows(1, 2), {}, stays)
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)  # no await on the way: it is answered at the first step
        return done.value.value

    output, _, observed = run(scenario, inline_rows=8)
    assert output.values.tolist() == [2, 4]
    assert observed.calls == []


INLINE = {"batches": False, "inline_rows": 64, "turn_rows": 64}
"""A compiled model: requests that one turn of the event loop brings share calls of up to 64 rows."""


def as_tasks(batcher: Batcher, *requests: Inputs) -> "list[asyncio.Task[Output]]":
    return [asyncio.ensure_future(batcher.predict(request, {}, stays)) for request in requests]


async def meet(batcher: Batcher, model: Doubler) -> None:
    """Lets two requests come in one turn, after which the next turn's share their calls."""
    await asyncio.gather(*as_tasks(batcher, rows(0), rows(0)))
    model.calls.clear()


def test_a_lone_request_is_answered_at_once_also_where_calls_are_shared():
    async def scenario(batcher, model, observed):
        for n in range(3):
            coroutine = batcher.predict(rows(n), {}, stays)
            with pytest.raises(StopIteration) as done:
                coroutine.send(None)
            assert done.value.value.values.tolist() == [2 * n]
            await asyncio.sleep(0)  # the turn ends

    _, model, observed = run(scenario, **INLINE)
    assert model.calls == [[0], [1], [2]]
    assert observed.calls == []


def test_requests_that_come_together_again_share_a_call_in_the_turn_that_brought_them():
    async def scenario(batcher, model, observed):
        tasks = as_tasks(batcher, rows(0), rows(1))
        await asyncio.sleep(0)  # nobody knew that they would be two
        assert all(task.done() for task in tasks)
        tasks = as_tasks(batcher, *[rows(n, -0.0) for n in range(5)], rows(5))
        for _ in range(3):  # they ask; the turn ends; they are woken
            await asyncio.sleep(0)
        assert all(task.done() for task in tasks)
        return [task.result().values.tolist() for task in tasks]

    answers, model, observed = run(scenario, **INLINE)
    assert answers == [[0, 0], [2, 0], [4, 0], [6, 0], [8, 0], [10]]
    assert [len(call) for call in model.calls] == [1, 1, 11]
    assert observed.calls == [11]
    assert len(observed.waits) == 6


def test_after_a_turn_with_one_request_the_next_is_answered_at_once_again():
    async def scenario(batcher, model, observed):
        await meet(batcher, model)
        await asyncio.gather(*as_tasks(batcher, rows(1)))
        (task,) = as_tasks(batcher, rows(2))
        await asyncio.sleep(0)
        return task.done(), observed.calls

    (is_done, calls), _, _ = run(scenario, **INLINE)
    assert is_done
    assert calls == [1]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(1, 100))
def test_calls_of_a_turn_are_whole_requests_up_to_the_limit_and_everyone_gets_its_own(sizes, turn_rows):
    starts = np.cumsum([0, *sizes])
    requests = [rows(*range(start, start + n)) for start, n in zip(starts.tolist(), sizes, strict=False)]

    async def scenario(batcher, model, observed):
        await meet(batcher, model)
        answers = await asyncio.gather(*as_tasks(batcher, *requests))
        return [answer.values.tolist() for answer in answers]

    answers, model, _ = run(scenario, **INLINE | {"turn_rows": turn_rows})
    assert answers == [(2 * request.columns[0]).tolist() for request in requests]
    firsts = {request.columns[0][0] for request in requests}
    for call in model.calls:
        assert call[0] in firsts
        n_requests = len(firsts.intersection(call))
        assert len(call) <= turn_rows or n_requests == 1
        assert len(call) == sum(r.n_rows for r in requests if r.columns[0][0] in call)


def test_of_a_failing_call_of_a_turn_only_the_guilty_request_gets_the_error():
    async def scenario(batcher, model, observed):
        await meet(batcher, model)
        return await asyncio.gather(*as_tasks(batcher, rows(1), rows(-1), rows(3)), return_exceptions=True)

    (one, guilty, three), model, _ = run(scenario, **INLINE)
    assert (one.values.tolist(), three.values.tolist()) == ([2], [6])
    assert isinstance(guilty, ValueError)
    assert model.calls == [[1, -1, 3], [1], [-1], [3]]


def test_a_request_of_a_turn_that_is_cancelled_leaves_the_others_their_answers():
    async def scenario(batcher, model, observed):
        await meet(batcher, model)
        one, cancelled, three = as_tasks(batcher, rows(1), rows(2), rows(3))
        await asyncio.sleep(0)
        cancelled.cancel()
        return [answer.values.tolist() for answer in (await one, await three)], cancelled.cancelled()

    (answers, is_cancelled), _, _ = run(scenario, **INLINE)
    assert answers == [[2], [6]]
    assert is_cancelled


def test_a_large_part_of_a_turns_rows_is_answered_by_itself():
    async def scenario(batcher, model, observed):
        await meet(batcher, model)
        await asyncio.gather(*as_tasks(batcher, rows(1), rows(*[2] * 9), rows(3)))

    _, model, _ = run(scenario, **INLINE)
    assert sorted(map(len, model.calls)) == [2, 9]


def test_a_free_model_takes_a_lone_request_within_two_turns_of_the_event_loop():
    async def scenario(batcher, model, observed):
        model.may_work.clear()
        answer = asyncio.ensure_future(batcher.predict(rows(1), {}, stays))
        for _ in range(4):  # one for the task itself, one for the turn that brings nothing more
            await asyncio.sleep(0)
        called = list(observed.calls)
        model.may_work.set()
        await answer
        return called

    called, _, _ = run(scenario)
    assert called == [1]


def test_what_gathers_while_the_model_works_shares_the_next_call():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        others = [asyncio.ensure_future(batcher.predict(rows(n), {}, stays)) for n in range(1, 31)]
        await asyncio.sleep(0)
        model.may_work.set()
        return [(await one).values.tolist() for one in [first, *others]]

    answers, model, observed = run(scenario)
    assert answers == [[2.0 * n] for n in range(31)]
    assert model.calls == [[0], [float(n) for n in range(1, 31)]]
    assert observed.calls == [1, 30]
    assert len(observed.waits) == 31


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(1, 20))
def test_every_caller_gets_the_answers_to_its_own_rows_in_whole_requests(sizes, max_batch_rows):
    requests = []
    start = 0
    for size in sizes:
        requests.append([float(n) for n in range(start, start + size)])
        start += size

    async def scenario(batcher, model, observed):
        answers = await asyncio.gather(*(batcher.predict(rows(*r), {}, stays) for r in requests))
        return [answer.values.tolist() for answer in answers]

    answers, model, _ = run(scenario, max_batch_rows=max_batch_rows)
    assert answers == [[2 * n for n in request] for request in requests]
    for call in model.calls:
        whole = [request for request in requests if request[0] in call]
        assert sorted(call) == sorted(n for request in whole for n in request)
        assert len(call) <= max_batch_rows or len(whole) == 1


def test_small_requests_take_turns_with_large_ones():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        large = [asyncio.ensure_future(batcher.predict(rows(*[n] * 500), {}, stays)) for n in (1, 2, 3)]
        small = [asyncio.ensure_future(batcher.predict(rows(n), {}, stays)) for n in (7, 8)]
        await asyncio.sleep(0)
        model.may_work.set()
        await asyncio.gather(first, *large, *small)

    _, model, _ = run(scenario)
    order = [(call[0], len(call)) for call in model.calls]
    assert order[0] == (0, 1)
    assert order.index((7, 2)) <= 2, order  # behind one large call at most, and both of them together
    assert [what for what in order if what[1] == 500] == [(1, 500), (2, 500), (3, 500)]


def test_a_large_request_does_not_wait_for_more_than_one_call_of_small_ones():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        small = [asyncio.ensure_future(batcher.predict(rows(*[n] * 8), {}, stays)) for n in range(1, 33)]
        large = asyncio.ensure_future(batcher.predict(rows(*[99] * 500), {}, stays))
        await asyncio.sleep(0)
        model.may_work.set()
        await asyncio.gather(first, *small, large)

    _, model, _ = run(scenario)
    sizes = list(map(len, model.calls))
    assert sizes.count(64) == 4  # 8 requests of 8 rows each
    assert sizes.index(500) <= 2, sizes


def test_of_a_failing_call_only_the_guilty_request_gets_the_error():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        others = [asyncio.ensure_future(batcher.predict(rows(n), {}, stays)) for n in (1, -1, 3)]
        await asyncio.sleep(0)
        model.may_work.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    (one, guilty, three), model, _ = run(scenario)
    assert one.values.tolist() == [2]
    assert three.values.tolist() == [6]
    assert isinstance(guilty, ValueError)
    assert model.calls == [[0], [1, -1, 3], [1], [-1], [3]]


class Panic(BaseException):
    """What a library in Rust may raise."""


@pytest.mark.parametrize("raised", [StopIteration(), Panic(), SystemExit(2), KeyboardInterrupt()])
def test_whatever_a_model_raises_the_others_are_answered(raised: BaseException):
    def fussy(inputs: Inputs, params: dict[str, Any]) -> Output:
        if (inputs.columns[0] < 0).any():
            raise raised
        return Output(values=inputs.columns[0] * 2)

    batcher = Batcher(fussy, policy(), Unobserved())

    async def main():
        try:
            requests = (batcher.predict(rows(n), {}, stays) for n in (1, -1, 3))
            return await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 10)
        finally:
            batcher.close()

    one, guilty, three = asyncio.run(main())
    assert (one.values.tolist(), three.values.tolist()) == ([2], [6])
    assert isinstance(guilty, RuntimeError)
    assert type(raised).__name__ in str(guilty)


def test_an_exception_whose_frames_are_forgotten_holds_no_rows():
    class Rows(list):
        pass

    async def scenario():
        async def wait(future):
            return await future

        held = Rows()
        alive = weakref.ref(held)
        future = asyncio.get_running_loop().create_future()
        try:
            fail(held)
        except ValueError as error:
            future.set_exception(error)
        del held
        try:
            await wait(future)
        except ValueError as error:
            forget_frames(error)
        del future
        return alive

    def fail(held):
        try:
            raise KeyError
        except KeyError as error:
            raise ValueError from error

    gc.disable()
    try:
        assert asyncio.run(scenario())() is None
    finally:
        gc.enable()


def test_the_rows_of_a_client_that_has_hung_up_are_not_predicted():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        hung_up = asyncio.Event()
        gone = asyncio.ensure_future(batcher.predict(rows(1), {}, hung_up.wait))
        there = asyncio.ensure_future(batcher.predict(rows(2), {}, stays))
        await asyncio.sleep(0)
        hung_up.set()
        with pytest.raises(ClientGone):
            await gone
        model.may_work.set()
        return [(await one).values.tolist() for one in (first, there)]

    answers, model, _ = run(scenario)
    assert answers == [[0], [4]]
    assert model.calls == [[0], [2]]


def test_one_request_more_than_may_wait_is_refused_and_the_others_are_answered():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        waiting = [asyncio.ensure_future(batcher.predict(rows(n), {}, stays)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="2 requests are queued"):
            await batcher.predict(rows(3), {}, stays)
        model.may_work.set()
        return [(await one).values.tolist() for one in [first, *waiting]]

    answers, _, _ = run(scenario, max_queued_requests=2)
    assert answers == [[0], [2], [4]]


def test_clients_that_hung_up_make_room_in_a_full_queue():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        hung_up = asyncio.Event()
        gone = asyncio.ensure_future(batcher.predict(rows(1), {}, hung_up.wait))
        await asyncio.sleep(0)
        hung_up.set()
        with pytest.raises(ClientGone):
            await gone
        next_one = asyncio.ensure_future(batcher.predict(rows(2), {}, stays))
        await asyncio.sleep(0)
        model.may_work.set()
        await first
        return (await next_one).values.tolist()

    answer, _, _ = run(scenario, max_queued_requests=1)
    assert answer == [4]


def test_requests_with_other_parameters_do_not_share_a_call():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        factors = [2, 3, 2, 3]
        others = [
            asyncio.ensure_future(batcher.predict(rows(10), {"factor": factor}, stays)) for factor in factors
        ]
        await asyncio.sleep(0)
        model.may_work.set()
        await first
        return [(await one).values.tolist() for one in others]

    answers, model, _ = run(scenario)
    assert answers == [[20], [30], [20], [30]]
    assert [len(call) for call in model.calls] == [1, 2, 2]


def test_integers_are_not_joined_with_the_floats_of_another_request():
    exact = 2**53 + 1

    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        integer = Inputs((np.array([exact]),), 1)
        others = [asyncio.ensure_future(batcher.predict(i, {}, stays)) for i in (integer, rows(np.nan))]
        await asyncio.sleep(0)
        model.may_work.set()
        await first
        return (await others[0]).values.tolist(), (await others[1]).values.tolist()

    (answer, _), model, _ = run(scenario)
    assert answer == [2 * exact]
    assert len(model.calls) == 3


def test_without_batching_every_request_has_its_own_call():
    async def scenario(batcher, model, observed):
        await asyncio.gather(*(batcher.predict(rows(n), {}, stays) for n in range(5)))

    _, model, _ = run(scenario, batches=False)
    assert model.calls == [[0], [1], [2], [3], [4]]


def test_a_model_that_answers_too_few_rows_for_a_shared_call_is_asked_for_each_request():
    calls = []

    def forgetful(inputs: Inputs, params: dict[str, Any]) -> Output:
        calls.append(inputs.n_rows)
        return Output(values=inputs.columns[0][:1])

    batcher = Batcher(forgetful, policy(), Unobserved())

    async def main():
        try:
            return await asyncio.gather(*(batcher.predict(rows(n), {}, stays) for n in range(3)))
        finally:
            batcher.close()

    answers = asyncio.run(main())
    assert [answer.values.tolist() for answer in answers] == [[0], [1], [2]]
    assert calls == [3, 1, 1, 1]


def choose(mode: Any, costs: Costs, **changes: Any) -> Policy:
    facts: dict[str, Any] = {
        "is_compiled": True,
        "is_rowwise": True,
        "max_batch_rows": 1024,
        "max_queued_requests": 9,
        "timeout_seconds": 60,
    }
    return choose_policy(mode, costs, **facts | changes)


@pytest.mark.parametrize(
    ("mode", "costs", "facts", "batches", "is_inline"),
    [
        ("auto", CHEAP, {}, False, True),
        ("auto", CHEAP, {"is_compiled": False}, True, False),
        ("auto", DEAR, {}, True, False),
        ("auto", DEAR, {"is_rowwise": False}, False, False),
        ("on", CHEAP, {}, True, False),
        ("on", DEAR, {"is_rowwise": False}, True, False),
        ("off", DEAR, {}, False, False),
        ("off", CHEAP, {}, False, True),
    ],
)
def test_the_policy_follows_mode_costs_and_independence(mode, costs, facts, batches, is_inline):
    chosen = choose(mode, costs, **facts)

    assert chosen.batches is batches
    assert (chosen.inline_rows > 0) is is_inline


FLAT = Costs({1: 0.00005, 8: 0.00004 * 8, 64: 0.00003 * 64})
"""Of a call for one row, little is saved by sharing it."""


@pytest.mark.parametrize(
    ("mode", "costs", "facts", "is_shared"),
    [
        ("auto", CHEAP, {}, True),
        ("auto", FLAT, {}, False),
        ("auto", CHEAP, {"is_rowwise": False}, False),
        ("auto", CHEAP, {"is_compiled": False}, False),
        ("auto", DEAR, {}, False),
        ("on", CHEAP, {}, False),
        ("off", CHEAP, {}, False),
    ],
)
def test_a_turns_requests_share_calls_where_that_saves_more_than_it_costs(mode, costs, facts, is_shared):
    chosen = choose(mode, costs, **facts)

    assert chosen.turn_rows == (chosen.max_batch_rows if is_shared else 0)
    assert (FLAT.estimate(1) - FLAT.estimate(8) / 8) < TURN_SECONDS


def test_requests_are_answered_on_the_event_loop_up_to_the_rows_that_the_limit_allows():
    chosen = choose("auto", CHEAP)

    assert CHEAP.estimate(chosen.inline_rows) <= INLINE_SECONDS < CHEAP.estimate(2 * chosen.inline_rows)


def test_costs_between_and_beyond_the_measured_rows_are_estimated():
    costs = Costs({1: 1.0, 8: 8.0, 64: 64.0})

    assert costs.estimate(4) == 4
    assert costs.estimate(64_000) == 64_000
    assert Costs({1: 5.0}).estimate(3) == 15  # a model so slow that it was measured once


def test_costs_are_measured_with_the_rows_that_are_given_over_and_over():
    sizes = []

    def call(inputs: Inputs, params: dict[str, Any]) -> Output:
        sizes.append(inputs.n_rows)
        assert set(inputs.columns[0].tolist()) <= {1.0, 2.0, 3.0}
        return Output(values=inputs.columns[0])

    costs = measure_costs(call, rows(1, 2, 3), {})

    assert list(costs.seconds) == [1, 8, 64, 512]
    assert sizes == [1] + [1] * 3 + [8] * 3 + [64] * 3 + [512] * 3


def test_a_first_call_that_takes_long_is_not_what_calls_cost():
    now = 0.0
    seconds = itertools.chain([1.0, 1.0], itertools.repeat(0.125))

    def call(inputs: Inputs, params: dict[str, Any]) -> Output:
        nonlocal now
        now += next(seconds)
        return Output(values=inputs.columns[0])

    costs = measure_costs(call, rows(1), {}, lambda: now)

    assert costs.seconds == dict.fromkeys([1, 8, 64, 512], 0.125)


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_no_more_rows_are_answered_on_the_loop_than_one_call_may_have(limit: int):
    assert choose("auto", CHEAP, max_batch_rows=limit).inline_rows <= limit


def short(**changes: Any) -> dict[str, Any]:
    return {"timeout_seconds": 0.05, **changes}


def test_a_request_whose_time_is_over_gets_its_error_while_its_call_goes_on():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        with pytest.raises(TimedOut):
            await first
        assert batcher.is_calling

    run(scenario, **short())


def test_a_request_that_waits_behind_a_long_call_may_be_sent_again():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        second = batcher.predict(rows(1), {}, stays, time.perf_counter() + 0.01)
        with pytest.raises(ModelBusy) as error:
            await second
        assert dict(error.value.headers)[b"retry-after"] == b"5"
        model.may_work.set()
        await first
        return model.calls

    calls, *_ = run(scenario)
    assert calls == [[0]]


def test_behind_a_call_that_takes_longer_than_a_request_may_nobody_waits():
    async def scenario(batcher, model, observed):
        first = await hold(batcher, model)
        others = as_tasks(batcher, rows(1), rows(*range(60)))
        await asyncio.sleep(0)
        assert batcher.pass_time(60) == 60
        assert not batcher.is_stuck
        assert batcher.pass_time(1) == 61
        assert batcher.is_stuck
        answers = await asyncio.gather(*others, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ModelBusy, ModelBusy]
        with pytest.raises(ModelBusy):
            await batcher.predict(rows(1), {}, stays)
        model.may_work.set()
        assert (await first).values.tolist() == [0]
        await until(lambda: not batcher.is_calling)
        assert not batcher.is_stuck
        assert batcher.pass_time(100) == 0
        return await batcher.predict(rows(3), {}, stays)

    output, *_ = run(scenario)
    assert output.values.tolist() == [6]


def test_a_small_request_to_a_compiled_model_is_answered_beside_a_call_that_does_not_end():
    async def scenario(batcher, model, observed):
        model.may_work.clear()
        large = asyncio.ensure_future(batcher.predict(rows(*range(100)), {}, stays))
        await until(lambda: len(model.calls) == 1)
        batcher.pass_time(61)
        model.may_work.set()
        assert (await batcher.predict(rows(1), {}, stays)).values.tolist() == [2]
        await large

    run(scenario, **INLINE)


def test_of_calls_for_one_request_each_those_that_end_are_answered():
    """A shared call has failed, and one of its requests hangs alone."""
    called: list[list[float]] = []
    may_end = threading.Event()

    def model(inputs: Inputs, params: dict[str, Any]) -> Output:
        values = inputs.columns[0]
        called.append(values.tolist())
        if len(values) > 1:
            raise ValueError
        if values[0] == 2:
            may_end.wait(20)
        return Output(values=values)

    async def main() -> list[Any]:
        batcher = Batcher(model, policy(), Unobserved())
        tasks = as_tasks(batcher, rows(1), rows(2), rows(3))
        answered = await asyncio.wait_for(tasks[0], 10)
        await until(lambda: len(called) == 3)
        for task in tasks[1:]:
            task.cancel()
        may_end.set()
        await until(lambda: not batcher.is_calling)
        batcher.close()
        return answered.values.tolist()

    assert asyncio.run(main()) == [1]
    assert called == [[1, 2, 3], [1], [2]]  # nobody waits for the third any more


def test_who_leaves_before_its_call_leaves_no_rows_behind():
    async def scenario(batcher, model, observed):
        model.may_work.clear()
        first = asyncio.ensure_future(batcher.predict(rows(1), {}, stays))
        await until(lambda: model.calls)
        large = Inputs((np.zeros(10_000),), 10_000)
        held = weakref.ref(large.columns[0])
        with contextlib.suppress(ModelBusy):
            await batcher.predict(large, {}, stays, deadline=time.perf_counter() + 0.01)
            pytest.fail("it was answered")
        del large
        gone = asyncio.ensure_future(batcher.predict(rows(2), {}, asyncio.Event().wait, deadline=None))
        await asyncio.sleep(0)
        gc.collect()  # of the exception's frames
        assert held() is None
        model.may_work.set()
        assert (await first).values.tolist() == [2]
        assert (await gone).values.tolist() == [4]

    run(scenario)
