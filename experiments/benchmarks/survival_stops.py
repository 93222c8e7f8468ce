"""SIGTERM in the middle of streams, and SIGKILL: what is lost, and how soon does the server serve again?"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from experiments.benchmarks import form, serving_models, survival_server
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.survival_load import Tell, following, until, versions_in
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc

STREAMS = 8
LOADED = re.compile(r"loaded and warm after ([\d.]+) s")


class Asker:
    """A thread with a stream of its own, sending until the server ends it.

    answered  numbers of the messages that were;  code  that the stream ended with
    """

    def __init__(self, port: int) -> None:
        self.answered: list[int] = []
        self.sent = 0
        self.code = ""
        self._port = port
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            stub = pb_grpc.RecommenderStub(channel)  # type: ignore[no-untyped-call]
            try:
                for reply in stub.RecommendStream(self._messages()):
                    self.answered.append(int(reply.request_id))
                self.code = "OK"
            except grpc.RpcError as error:
                self.code = error.code().name
            self._stop.set()

    def _messages(self) -> Iterator[pb.RecommendStreamRequest]:
        for self.sent in itertools.count(1):
            if self._stop.is_set():
                return
            request = pb.RecommendRequest(user_id=str(self.sent % 300 + 1), k=10, request_id=str(self.sent))
            yield pb.RecommendStreamRequest(request=request)

    @property
    def gaps(self) -> int:
        """Messages without an answer of which a later one has been answered: read, as the later one was, and lost."""
        return max(self.answered, default=0) - len(set(self.answered))


def terminated(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """Raises  OpponentFailed: the server does not end"""
    bundle = serving_models.bundle_of(survival_server.SHAPE, folder)
    rounds = 2 if quick else 20
    sent, answered, gaps, codes, statuses, longest = 0, 0, 0, set(), set(), 0.0
    for number in range(rounds):
        target = survival_server.started(survival_server.target(str(bundle), folder))
        try:
            askers = [Asker(target.port) for _ in range(STREAMS)]
            until(lambda some=askers: all(len(one.answered) > 50 for one in some), "streams are not answered")  # type: ignore[misc]
            begun = time.monotonic()
            os.kill(target.pid, signal.SIGTERM)
            statuses.add(target.wait(60))
            longest = max(longest, time.monotonic() - begun)
            for asker in askers:
                asker.thread.join()
        finally:
            target.stop()
        sent += sum(asker.sent for asker in askers)
        answered += sum(len(asker.answered) for asker in askers)
        gaps += sum(asker.gaps for asker in askers)
        codes |= {asker.code for asker in askers}
        tell(f"SIGTERM {number + 1} of {rounds}: {answered} answered, {gaps} lost")
    report.add("SIGTERM", "times, with 8 streams in full flow", rounds, "")
    report.add("SIGTERM", "messages sent", sent, "")
    report.add("SIGTERM", "messages answered", answered, "")
    report.add("SIGTERM", "messages that were read and not answered", gaps, "")
    report.add("SIGTERM", "from the signal to the end of the process, longest", longest, "s")
    report.notes.append(
        f"SIGTERM: streams ended with {', '.join(sorted(codes))}, processes with {sorted(statuses)}. A message counts "
        "as read if it, or one that was sent after it on its stream, was answered."
    )


def killed(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """SIGKILL under load, and a restart from the cache with the registry away.  Raises  OpponentFailed"""
    versions = versions_in(folder)
    first = following(versions, folder)
    begun = time.monotonic()
    survival_server.started(first)
    usual = time.monotonic() - begun
    registry, away = folder / "mlflow.db", folder / "away.db"
    times, loads = [], []
    try:
        for number in range(1 if quick else 5):
            askers = [Asker(first.port) for _ in range(STREAMS)]
            until(lambda some=askers: all(len(one.answered) > 50 for one in some), "streams are not answered")  # type: ignore[misc]
            first.stop()  # SIGKILL
            for asker in askers:
                asker.thread.join()
            if registry.exists():
                registry.rename(away)
            begun = time.monotonic()
            first = survival_server.started(following(versions, folder, port=first.port))
            times.append(time.monotonic() - begun)
            loads.append(float(LOADED.findall(first.log.read_text())[-1]))
            if not survival_server.served(first).registry.from_cache:
                raise OpponentFailed("the restarted server does not serve from the cache")
            tell(f"SIGKILL {number + 1}: {times[-1]:.1f} s to serve, {loads[-1]:.1f} s of them for the model")
    finally:
        first.stop()
    report.add("SIGKILL", "times, the registry away", len(times), "")
    report.add("SIGKILL", "from the start to the first answer, with the registry", usual, "s")
    report.add("SIGKILL", "from the restart to the first answer, from the cache, longest", max(times), "s")
    report.add("SIGKILL", "of that, loading and warming up, longest", max(loads), "s")
