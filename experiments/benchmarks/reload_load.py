"""Steady load of all four methods, from a process of its own; every answer is compared with its version's own.

Requests go out at their times whatever the answers do, and latency counts from when a request was due, so a server
that stands still is seen in all the requests that would have been sent meanwhile.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import grpc
import numpy as np

from experiments.benchmarks.opponents.servers import CLIENT_CORE, on_core
from experiments.benchmarks.reload_versions import Answers, K, Question
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc

METHODS = ("Recommend", "Score", "RecommendStream", "ScoreStream")
TOLERANCE = 1e-5
PATIENCE = 60.0  # seconds after which a request counts as lost


@dataclass(frozen=True)
class Sent:
    """One request.

    due      on the monotonic clock
    seconds  until its answer was there; NaN where none came
    version  that the answer names; empty where none came
    fault    empty for an answer that is that version's own; else what is wrong with it
    """

    method: str
    due: float
    seconds: float
    version: str
    fault: str


class Load:
    """Asks the questions in turn, by each method `rate` times a second."""

    def __init__(self, port: int, questions: list[Question], answers: Answers, rate: float) -> None:
        self.stub = pb_grpc.RecommenderStub(grpc.insecure_channel(f"127.0.0.1:{port}"))  # type: ignore[no-untyped-call]
        self.answers = answers
        self.rate = rate
        self.sent: list[Sent] = []
        self.requests = [
            (
                pb.RecommendRequest(user_id=question.user, k=K),
                pb.ScoreRequest(user_id=question.user, item_ids=question.items),
            )
            for question in questions
        ]

    def run(self, stop: Event) -> list[Sent]:
        threads = [
            threading.Thread(
                target=self._stream if method.endswith("Stream") else self._unary, args=(method, stop)
            )
            for method in METHODS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.sent

    def _due(self, stop: Event) -> Iterator[tuple[int, float]]:
        """Number and time of each request, when its time has come."""
        start = time.monotonic()
        for number in itertools.count():
            due = start + number / self.rate
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            yield number, due

    def _unary(self, method: str, stop: Event) -> None:
        done = threading.Semaphore(0)
        count = 0
        for number, due in self._due(stop):
            call = getattr(self.stub, method).future(self._request(method, number), timeout=PATIENCE)
            call.add_done_callback(self._recorder(method, number, due, done))
            count += 1
        for _ in range(count):
            done.acquire()

    def _recorder(
        self, method: str, number: int, due: float, done: threading.Semaphore
    ) -> Callable[[Any], None]:
        def record(call: Any) -> None:
            answered = time.monotonic()
            try:
                self._answered(method, number, due, answered, call.result())
            except grpc.RpcError as error:
                self._lost(method, due, f"{error.code().name}: {error.details()}")
            finally:
                done.release()

        return record

    def _stream(self, method: str, stop: Event) -> None:
        waiting: dict[str, tuple[int, float]] = {}
        kind = pb.RecommendStreamRequest if method == "RecommendStream" else pb.ScoreStreamRequest

        def requests() -> Iterator[Any]:
            for number, due in self._due(stop):
                request = self._request(method, number)
                request.request_id = str(number)
                waiting[request.request_id] = (number, due)
                yield kind(request=request)

        why = "no answer"
        try:
            for reply in getattr(self.stub, method)(requests()):
                answered = time.monotonic()
                number, due = waiting.pop(reply.request_id)
                if reply.status.code:
                    self._lost(method, due, f"status {reply.status.code}")
                else:
                    self._answered(method, number, due, answered, reply.response)
        except grpc.RpcError as error:
            why = f"{error.code().name}: {error.details()}"
        for _, due in waiting.values():
            self._lost(method, due, why)

    def _request(self, method: str, number: int) -> Any:
        wanted = self.requests[number % len(self.requests)][not method.startswith("Recommend")]
        copy = type(wanted)()
        copy.CopyFrom(wanted)
        return copy

    def _answered(self, method: str, number: int, due: float, answered: float, response: Any) -> None:
        version, place = response.model.version, number % len(self.requests)
        if version not in self.answers:
            fault = "a version that must not be served"
        else:
            expected = self.answers[version][place]
            if method.startswith("Recommend"):
                right = _near(response.scores, expected.scores) and _in_order(response, expected.ranked)
            else:
                right = _near(response.probabilities, expected.probabilities)
            fault = "" if right else "not the answer of the version that it names"
        self.sent.append(Sent(method, due, answered - due, version, fault))

    def _lost(self, method: str, due: float, why: str) -> None:
        self.sent.append(Sent(method, due, float("nan"), "", f"lost: {why}"))


def _near(found: Any, expected: np.ndarray) -> bool:
    return len(found) == len(expected) and np.allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def _in_order(response: Any, expected: tuple[str, ...]) -> bool:
    """The same items, and where two are equally good, in either order."""
    if tuple(response.item_ids) == expected:
        return True
    gaps = np.diff(np.array(response.scores))
    moved = [
        place
        for place, pair in enumerate(zip(response.item_ids, expected, strict=True))
        if pair[0] != pair[1]
    ]
    ties = {place for gap in np.flatnonzero(np.abs(gaps) <= TOLERANCE) for place in (int(gap), int(gap) + 1)}
    return set(response.item_ids) == set(expected) and set(moved) <= ties


def drive(
    port: int,
    questions: list[Question],
    answers: Answers,
    rate: float,
    begun: Event,
    stop: Event,
    results: Queue[list[Sent]],
) -> None:
    """The process: load until `stop`, then all that was sent goes to `results`."""
    with on_core(CLIENT_CORE):
        load = Load(port, questions, answers, rate)
        begun.set()
        results.put(load.run(stop))
