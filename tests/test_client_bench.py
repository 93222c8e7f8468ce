"""The load tool, against a real server."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_servers import Servicer, calls_in_flight, serving
from serving import Running, running

from server.client.__main__ import main
from server.client.latencies import Latencies
from server.client.load import Load
from server.client.senders import FailedError, Population
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]
ROOT = Path(__file__).parent.parent
SHORT = ["--duration", "1", "--warm-up", "0.2", "--concurrency", "4", "--items", "5"]


def bench(server: Running, *flags: str) -> int:
    return main(["bench", "--target", server.target, *SHORT, *flags])


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_table(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--mix", "recommend=1,score=1,score_stream=2,recommend_stream=1") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{server.target}, 4 at a time, 1.0 s after 0.2 s to warm up\n")
    lines = out.splitlines()
    assert lines[2].split() == ["answered", "per", "s", "p50", "p90", "p99", "p99.9", "max", "ms", "errors"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[3:8]}
    assert set(rows) == {"all", "recommend", "recommend_stream", "score", "score_stream"}
    answered = {name: int(row[0].replace(",", "")) for name, row in rows.items()}
    assert answered.pop("all") == sum(answered.values()) > 20
    assert min(answered.values()) > 0
    assert {row[-1] for row in rows.values()} == {"none"}
    times = [float(time.replace(",", "")) for time in rows["all"][2:7]]
    assert times == sorted(times)
    assert re.search(rf"^{sum(answered.values()):,} by model\.pth version [0-9a-f]{{12}}$", out, re.MULTILINE)
    bars = re.findall(r"^ *[\d.,]+ to [\d.,]+ ms +([\d,]+)  (#*)$", out, re.MULTILINE)
    assert sum(int(count.replace(",", "")) for count, _ in bars) == sum(answered.values())
    assert max(len(bar) for _, bar in bars) == 50
    assert re.search(r"^This process took \d\.\d\d of a CPU core", out, re.MULTILINE)


def test_json_at_a_rate(server: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "users").write_text("1\n2\nnobody\n")
    (tmp_path / "items").write_text("5\n6\n")
    flags = ["--users", str(tmp_path / "users"), "--item-ids", str(tmp_path / "items"), "--mix", "score=1"]
    run = [
        "bench",
        "--target",
        server.target,
        "--rate",
        "20",
        "--duration",
        "1",
        "--warm-up",
        "0.2",
        "--json",
    ]
    assert main([*run, *flags]) == 0
    found = as_json(capsys)
    assert (found["rate"], found["concurrency"]) == (20, None)
    assert found["rpcs"]["all"] == found["rpcs"]["score"]
    assert found["rpcs"]["score"]["answered"] == 20
    assert 0 < found["rpcs"]["score"]["not_personal"] < 20
    assert [model["answered"] for model in found["models"]] == [20]
    assert sum(row["count"] for row in found["histogram"]) == 20


def test_errors_are_counted_by_code(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--mix", "score=1,score_stream=1", "--item-ids", "x,y", "--json") == 1
    found = as_json(capsys)["rpcs"]
    assert set(found["score"]["errors"]) == set(found["score_stream"]["errors"]) == {"NOT_FOUND"}
    assert found["all"]["answered"] == 0
    assert found["all"]["p50_ms"] is None
    assert bench(server, "--mix", "score=1", "--item-ids", "x") == 1
    assert re.search(r"NOT_FOUND \d+$", capsys.readouterr().out, re.MULTILINE)


def test_similar_items(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--mix", "similar=1", "--json") == 0
    found = as_json(capsys)["rpcs"]["similar"]
    assert found["answered"] > 0
    assert found["errors"] == {}


def test_the_longest_ranking_may_be_short(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(bundle, max_k=20) as server:
        assert bench(server, "--json") == 0
    assert as_json(capsys)["rpcs"]["all"]["errors"] == {}


def test_no_server_and_no_ids(server: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "--target", "127.0.0.1:1"]) == 1
    assert "cannot reach a server" in capsys.readouterr().err
    assert bench(server, "--users", str(tmp_path / "missing")) == 1
    assert f"--users: cannot read {tmp_path}/missing" in capsys.readouterr().err
    (tmp_path / "empty").write_text("\n")
    assert bench(server, "--item-ids", str(tmp_path / "empty")) == 1
    assert "has no ids" in capsys.readouterr().err
    assert bench(server, "--item-ids", ",") == 1
    assert "no item ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--mix", "guess=1"], ["--mix", "score"], ["--mix", "score=-1"], ["--mix", "score=nan"], ["--mix", "score=0"],
        ["--mix", ""], ["--rate", "0"], ["--rate", "many"], ["--rate", "5", "--concurrency", "5"], ["--items", "0"],
        ["--concurrency", "0"], ["--concurrency", "1.5"], ["--duration", "0"], ["--warm-up", "-1"], ["--k", "x"],
    ],
)  # fmt: skip
def test_unusable_flags(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *flags])
    assert caught.value.code == 2
    assert "usage: python -m server.client bench" in capsys.readouterr().err


def test_an_interrupt_still_prints(server: Running) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "server.client", "bench", "--target", server.target, "--duration", "60",
         "--warm-up", "0", "--users", "5", "--item-ids", "1,2,3", "--concurrency", "2",
         "--mix", "score=1,score_stream=1"],
        cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not calls_in_flight(server) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == ""
    assert re.search(r"^all +[1-9]", out, re.MULTILINE)


def test_a_stream_that_breaks_is_opened_again(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    streams = []

    def breaking(requests: Iterator[Any]) -> Iterator[Any]:
        streams.append(1)
        for _, message in zip(range(3), requests, strict=False):
            asked = message.request.request_id
            yield pb.ScoreStreamResponse(request_id=asked, response=pb.ScoreResponse(request_id=asked))
        raise RuntimeError("broken")

    with serving(Servicer(score_stream=breaking)) as target:
        flags = ["--users", "3", "--item-ids", "1", "--mix", "score_stream=1", "--warm-up", "0", "--json"]
        assert main(["bench", "--target", target, "--duration", "1", "--concurrency", "2", *flags]) == 0
    found = as_json(capsys)["rpcs"]["score_stream"]
    assert set(found["errors"]) == {"UNKNOWN"}
    assert found["answered"] > 3
    assert len(streams) > 1
    logged = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert not [text for text in logged if text.startswith(("Task ", "Future "))], "no task is left behind"


class Stalling:
    """Answers at once, but for a second in which nothing is answered."""

    def __init__(self, stalled_from: float, stalled_to: float) -> None:
        self.begun = time.perf_counter()
        self.stalled = (stalled_from, stalled_to)

    async def send(self) -> pb.ScoreResponse:
        now = time.perf_counter() - self.begun
        if self.stalled[0] <= now < self.stalled[1]:
            await asyncio.sleep(self.stalled[1] - now)
        return pb.ScoreResponse()

    async def close(self) -> None:
        pass


def test_a_rate_shows_what_a_stall_does() -> None:
    """Everything due while it lasts is late, not only what was in flight."""

    async def run(rate: float | None) -> Latencies:
        load = Load({"score": Stalling(1, 2)}, {"score": 1.0}, 1, rate, 0.0, 3.0, 5.0)  # type: ignore[dict-item]
        return (await load.run(asyncio.Event())).tallies["score"].latencies

    late = asyncio.run(run(50))
    assert late.count == 150
    assert late.percentile(80) > 0.3
    assert late.max > 0.8


def test_what_holds_up_the_sender_counts_too() -> None:
    class Blocking(Stalling):
        async def send(self) -> pb.ScoreResponse:
            now = time.perf_counter() - self.begun
            if 0.5 <= now < 1:
                time.sleep(0.5)  # the whole loop waits, as for a server's slow reading
            return pb.ScoreResponse()

    load = Load({"score": Blocking(0, 0)}, {"score": 1.0}, 1, 100.0, 0.0, 2.0, 5.0)  # type: ignore[dict-item]
    found = asyncio.run(load.run(asyncio.Event())).tallies["score"].latencies
    assert found.count == 200
    assert found.percentile(90) > 0.15


def test_messages_that_are_never_answered_are_counted() -> None:
    class Mute(Stalling):
        async def send(self) -> pb.ScoreResponse:
            await asyncio.Event().wait()
            raise AssertionError

    load = Load({"score_stream": Mute(0, 0)}, {"score_stream": 1.0}, 3, None, 0.0, 0.2, 0.1)  # type: ignore[dict-item]
    record = asyncio.run(load.run(asyncio.Event()))
    assert record.tallies["score_stream"].errors == {"DEADLINE_EXCEEDED": 3}
    assert record.answered == 0


def test_the_mix_is_kept() -> None:
    counts = {"score": 0, "recommend": 0}

    class Counting(Stalling):
        def __init__(self, name: str) -> None:
            self.name = name

        async def send(self) -> pb.ScoreResponse:
            counts[self.name] += 1
            await asyncio.sleep(0)
            if self.name == "recommend":
                raise FailedError("UNAVAILABLE")
            return pb.ScoreResponse()

    senders: Any = {name: Counting(name) for name in counts}
    load = Load(senders, {"score": 3.0, "recommend": 1.0}, 1, 1000.0, 0.0, 1.0, 5.0)
    record = asyncio.run(load.run(asyncio.Event()))
    assert sum(counts.values()) == 1000
    assert counts["recommend"] / 1000 == pytest.approx(0.25, abs=0.05)
    assert record.tallies["recommend"].errors == {"UNAVAILABLE": counts["recommend"]}


def test_stopping_does_not_wait_for_the_end() -> None:
    async def run() -> float:
        stop = asyncio.Event()
        load = Load({"score": Stalling(0, 60)}, {"score": 1.0}, 2, None, 0.0, 60.0, 60.0)  # type: ignore[dict-item]
        asyncio.get_running_loop().call_later(0.2, stop.set)
        begun = time.perf_counter()
        record = await load.run(stop)
        assert record.answered == 0
        assert not record.tallies
        return time.perf_counter() - begun

    assert asyncio.run(run()) < 5


def test_percentiles() -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(-5, 1) for _ in range(5000)]
    one, other = Latencies(), Latencies()
    for value in values[:2000]:
        one.add(value)
    for value in values[2000:]:
        other.add(value)
    one.update(other)
    values.sort()
    for percent in (1, 50, 90, 99, 99.9):
        assert one.percentile(percent) == pytest.approx(values[math.ceil(50 * percent) - 1], rel=0.005)
    assert (one.count, one.max) == (5000, values[-1])
    assert one.percentile(100) <= values[-1]
    rows = one.histogram()
    assert sum(count for _, _, count in rows) == 5000
    assert all(high == pytest.approx(low * 10**0.2) for low, high, _ in rows)
    assert [low for low, _, _ in rows[1:]] == pytest.approx([high for _, high, _ in rows[:-1]])
    assert math.isnan(Latencies().percentile(50))
    assert Latencies().histogram() == []


def test_the_same_requests_in_every_run() -> None:
    population = Population(["1", "2"], ["7", "8", "9"], k=5, items=2)
    for kind in ("recommend", "score", "similar"):
        (_, first), (_, second) = population.requests(kind), population.requests(kind)
        some = [next(first) for _ in range(20)]
        assert some == [next(second) for _ in range(20)]
        assert len({request.SerializeToString() for request in some}) > 1
