"""The lane: what is gathered, what is refused, what is dropped. With real threads and without a model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from server.batcher import Lane
from server.status import DeadlineError, OverloadedError
from widedeep.errors import InvalidQueryError


class Doubler:
    """Doubles numbers, remembers its batches, and can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, numbers: list[int]) -> list[Any]:
        self.batches.append(numbers)
        assert self.free.wait(20)
        if 13 in numbers:
            raise RuntimeError("thirteen")
        return [InvalidQueryError("n", "is negative") if number < 0 else 2 * number for number in numbers]


def in_lane(body: Callable[[Lane, Doubler], Coroutine[Any, Any, None]], **limits: float) -> None:
    async def life() -> None:
        lane = Lane("test", **{"most_queued": 100, "most_at_once": 10, "max_wait": 60.0, **limits})
        try:
            async with asyncio.timeout(30):
                await body(lane, Doubler())
        finally:
            lane.close()

    asyncio.run(life())


async def held(lane: Lane, double: Doubler) -> asyncio.Task[Any]:
    """A query that the lane's thread is busy with until `double.free` is set."""
    double.free.clear()
    task = asyncio.create_task(lane.answer(double, 1, 1, None))
    while not double.batches:
        await asyncio.sleep(0.001)
    return task


async def queue(lane: Lane, double: Any, *numbers: int, **given: Any) -> list[asyncio.Task[Any]]:
    tasks = [
        asyncio.create_task(lane.answer(double, number, given.get("cost", 1), given.get("remaining")))
        for number in numbers
    ]
    await asyncio.sleep(0)
    return tasks


def test_an_idle_lane_does_not_wait_and_a_busy_one_gathers() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        first = await held(lane, double)
        others = await queue(lane, double, *range(2, 9))
        double.free.set()
        assert await asyncio.gather(first, *others) == [2 * number for number in range(1, 9)]
        assert double.batches == [[1], [2, 3, 4, 5, 6, 7, 8]]
        counts = lane.counts
        assert (counts.batches, counts.queries, counts.items, lane.queued) == (2, 8, 8, 0)

    in_lane(body)


def test_a_batch_ends_at_its_items_and_at_another_model() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        first = await held(lane, double)
        large = await queue(lane, double, 2, 3, 4, 5, cost=4)
        other = Doubler()
        foreign = await queue(lane, other, 6)
        alone = await queue(lane, double, 7, cost=50)
        double.free.set()
        await asyncio.gather(first, *large, *foreign, *alone)
        assert double.batches == [[1], [2, 3], [4, 5], [7]]
        assert other.batches == [[6]]

    in_lane(body)


def test_queries_of_two_models_are_batched_with_their_like() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        first, other = await held(lane, double), Doubler()
        mixed = [
            task
            for n in range(2, 14, 2)
            for task in (*await queue(lane, double, n), *await queue(lane, other, n + 1))
        ]
        (late,) = await queue(lane, double, 50)
        mixed[2].cancel()
        double.free.set()
        await asyncio.gather(first, *mixed[:2], *mixed[3:], late, return_exceptions=True)
        assert double.batches == [[1], [2, 6, 8, 10, 12, 50]]
        assert other.batches[0] == [3, 5, 7, 9, 11, 13]
        assert (lane.queued, lane.counts.dropped) == (0, 1)

    in_lane(body)


def test_answers_are_those_of_one_at_a_time_whatever_is_mixed() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        generator = np.random.default_rng(0)
        for _ in range(20):
            numbers = generator.integers(-5, 40, size=30).tolist()
            numbers = [number for number in numbers if number != 13]
            costs = generator.integers(1, 6, size=len(numbers)).tolist()
            answers = await asyncio.gather(
                *(
                    lane.answer(double, number, cost, None)
                    for number, cost in zip(numbers, costs, strict=True)
                ),
                return_exceptions=True,
            )
            for number, answer in zip(numbers, answers, strict=True):
                assert isinstance(answer, InvalidQueryError) if number < 0 else answer == 2 * number

    in_lane(body, most_queued=1000)


def test_a_query_fails_through_its_own_fault_alone() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        first = await held(lane, double)
        others = await queue(lane, double, 12, 13, 14)
        double.free.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert [found[0], found[1], found[3]] == [2, 24, 28]
        assert isinstance(found[2], RuntimeError)

    in_lane(body)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        await lane.answer(double, 0, 1, None)  # so that it knows what an item costs
        double.batches.clear()
        first = await held(lane, double)
        waiting = await queue(lane, double, 2, 3, cost=50)
        with pytest.raises(OverloadedError, match="100 items wait in the test lane") as caught:
            await lane.answer(double, 4, 1, None)
        assert caught.value.retry_after > 0
        assert lane.counts.overloaded == 1
        double.free.set()
        assert await asyncio.gather(first, *waiting) == [2, 4, 6]
        assert await lane.answer(double, 4, 1000, None) == 8, "what is larger than the queue goes alone"

    in_lane(body)


def test_cancelled_and_expired_work_is_dropped_before_it_is_computed() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        first = await held(lane, double)
        cancelled, kept = await queue(lane, double, 2, 3)
        (expired,) = await queue(lane, double, 4, remaining=0.05)
        cancelled.cancel()
        await asyncio.sleep(0.1)
        double.free.set()
        assert await asyncio.gather(first, kept) == [2, 6]
        with pytest.raises(DeadlineError, match="passed"):
            await expired
        assert double.batches == [[1], [3]]
        assert lane.counts.dropped == 2
        assert lane.queued == 0

    in_lane(body)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        expect(lane, 0.2)
        first = await held(lane, double)
        waiting = await queue(lane, double, 2, 3, 4)
        with pytest.raises(DeadlineError, match="less than the 0"):
            await lane.answer(double, 5, 1, 0.5)
        (patient,) = await queue(lane, double, 6, remaining=5.0)
        assert lane.counts.hopeless == 1
        double.free.set()
        assert await asyncio.gather(first, *waiting, patient) == [2, 4, 6, 8, 12]

    in_lane(body)


def test_an_idle_lane_refuses_nothing() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        assert await lane.answer(double, 2, 1, 0.001) == 4

    in_lane(body)


def test_what_an_item_takes_is_measured() -> None:
    def slow(numbers: list[int]) -> list[Any]:
        time.sleep(0.02)
        return numbers

    async def body(lane: Lane, double: Doubler) -> None:
        await lane.answer(slow, 0, 4, None)
        first = lane.counts.busy_seconds
        assert first >= 0.02
        assert lane._seconds_per_item == first / 4
        await lane.answer(double, 0, 4, None)
        second = lane.counts.busy_seconds - first
        assert lane._seconds_per_item == pytest.approx((0.8 * first + 0.2 * second) / 4)

    in_lane(body)


def expect(lane: Lane, seconds: float) -> float:
    """As if the lane had measured so many for an item."""
    lane._seconds_per_item = seconds
    return seconds


def age(lane: Lane) -> None:
    """As if all that waits had come long ago."""
    for work in lane._waiting:
        work.since -= 60


def test_a_burst_after_quiet_is_taken() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        expect(lane, 0.02)
        first = await held(lane, double)
        waiting = await queue(lane, double, *[3] * 1000)
        assert lane._seconds_ahead(time.monotonic()) > 4 * lane.max_wait
        age(lane)
        assert lane.refusal()
        double.free.set()
        assert await asyncio.gather(first, *waiting) == [2, *[6] * 1000]
        assert lane.counts.overloaded == 1

    in_lane(body, most_queued=10_000, max_wait=4.0)


@pytest.mark.parametrize("seed", range(8))
def test_calls_wait_for_no_more_work_than_may(seed: int) -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        draw, max_wait = np.random.default_rng(seed), 0.4
        item = expect(lane, 0.02)
        first = await held(lane, double)
        taken: list[asyncio.Task[Any]] = []
        before = 0
        while lane.refusal() is None:
            before = lane.queued
            taken += await queue(lane, double, 3, cost=int(draw.integers(1, 8)))
            age(lane)
        assert before * item <= max_wait, "nothing was let in behind more than may wait"
        assert (lane.queued + 1) * item > max_wait, "nothing was refused that may wait"
        with pytest.raises(OverloadedError, match=r"More than 0\.4 s of work wait in the test lane"):
            await lane.answer(double, 1, 1, None)
        double.free.set()
        assert await asyncio.gather(first, *taken) == [2, *[6] * len(taken)]
        assert lane.refusal() is None
        assert lane.queued == 0

    in_lane(body, most_queued=10_000, max_wait=0.4)


def test_patient_work_is_held_back_and_neither_kind_keeps_the_other_out() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        item = expect(lane, 0.02)
        first = await held(lane, double)
        many = round(1.5 / item)
        patient = [asyncio.create_task(lane.answer(double, 3, 1, None, patient=True)) for _ in range(many)]
        await asyncio.sleep(0)
        assert lane.counts.overloaded == 0, "none was refused, of three times what calls may wait for"
        (call,) = await queue(lane, double, -1)
        gone = patient.pop()
        gone.cancel()
        double.free.set()
        with pytest.raises(InvalidQueryError):
            await call
        assert await asyncio.gather(first, *patient) == [2, *[6] * (many - 1)]
        (place,) = (number for number, batch in enumerate(double.batches) if -1 in batch)
        assert 0 < place < len(double.batches) / 2, "the call waited for a part of the patient work"
        assert lane.queued == 0
        assert lane.counts.dropped == 1

    in_lane(body, most_queued=10_000, most_at_once=4, max_wait=0.5)


def test_the_more_are_refused_the_longer_they_are_to_stay_away() -> None:
    async def body(lane: Lane, double: Doubler) -> None:
        async def told(refusals: int) -> float:
            """Seconds to stay away, on average, for each that has to be waited."""
            first = await held(lane, double)
            waiting = await queue(lane, double, 2, cost=3)
            age(lane)
            ahead = lane._seconds_ahead(time.monotonic())
            found = [lane.refusal() for _ in range(refusals)]
            delays = [refusal.retry_after for refusal in found if refusal]
            assert len(set(delays)) > refusals / 2, "they are not told to come back together"
            double.free.set()
            await asyncio.gather(first, *waiting)
            double.batches.clear()
            return float(np.mean(delays)) / ahead

        expect(lane, 0.02)
        assert 0.5 < await told(100) < 1.3
        assert await told(100) > 5

    in_lane(body, max_wait=0.03)
