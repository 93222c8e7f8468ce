"""Calls cancelled at random moments, and streams broken midway: is anything held afterwards?"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from experiments.benchmarks import form, serving_models, survival_server
from experiments.benchmarks.serving_load import ask
from experiments.benchmarks.serving_targets import SERVICE
from experiments.benchmarks.survival_load import Tell, until
from server.pb import recommender_pb2 as pb

CALLS, QUICK_CALLS = 5000, 300
STREAMS, QUICK_STREAMS = 500, 30
AT_ONCE = 64
LONGEST = 0.05  # seconds until a call is cancelled


async def storm(port: int, calls: int, streams: int, seed: int = 0) -> Counter[str]:
    """How calls and streams ended, CANCELLED most of them."""
    draw, ended, room = random.Random(seed), Counter[str](), asyncio.Semaphore(AT_ONCE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def one(number: int) -> None:
            async with room:
                if number < streams:
                    await _broken_stream(channel, draw, ended)
                else:
                    await _cancelled_call(channel, draw, ended)

        order = list(range(calls + streams))
        draw.shuffle(order)
        await asyncio.gather(*map(one, order))
    return ended


def _query(draw: random.Random) -> pb.RecommendRequest:
    explain = 3 if draw.random() < 0.1 else 0
    return pb.RecommendRequest(user_id=str(draw.randrange(1, 300)), k=10, explain=explain)


async def _cancelled_call(channel: Any, draw: random.Random, ended: Counter[str]) -> None:
    name, request = "Recommend", _query(draw).SerializeToString()
    if draw.random() < 0.5:
        items = [str(draw.randrange(1, 200)) for _ in range(draw.randrange(1, 500))]
        name, request = "Score", pb.ScoreRequest(user_id="1", item_ids=items).SerializeToString()
    call = channel.unary_unary(SERVICE + name)(request, timeout=60)
    await asyncio.sleep(draw.uniform(0, LONGEST))
    call.cancel()
    ended[(await call.code()).name] += 1


async def _broken_stream(channel: Any, draw: random.Random, ended: Counter[str]) -> None:
    call = channel.stream_stream(f"{SERVICE}RecommendStream")()
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        for _ in range(draw.randrange(1, 40)):
            await call.write(pb.RecommendStreamRequest(request=_query(draw)).SerializeToString())
            if draw.random() < 0.3:
                await call.read()
        await asyncio.sleep(draw.uniform(0, LONGEST))
    call.cancel()
    ended[(await call.code()).name] += 1


def run(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """Raises  OpponentFailed: something is still held"""
    bundle = serving_models.bundle_of(survival_server.SHAPE, folder)
    target = survival_server.started(survival_server.target(str(bundle), folder))
    try:
        calls, streams = (QUICK_CALLS, QUICK_STREAMS) if quick else (CALLS, STREAMS)
        question = pb.ScoreRequest(user_id="1", item_ids=["1", "2", "3"]).SerializeToString()
        before, memory = ask(target, question, f"{SERVICE}Score"), survival_server.resident(target)
        ended = asyncio.run(storm(target.port, calls, streams))
        tell(f"cancel: {dict(ended)}")
        freed = until(lambda: survival_server.leases(target) == 0, "leases are still held")
        report.add("cancel", "calls cancelled at random moments", calls, "")
        report.add("cancel", "streams broken midway", streams, "")
        for code, count in sorted(ended.items()):
            report.add("cancel", f"ended with {code}", count, "")
        report.notes.append(
            "cancel: INTERNAL is said by grpc.aio in the client itself (“Internal error from Core”); the server's log "
            "has what the server fails with. UNAVAILABLE is HTTP/2's REFUSED_STREAM: cancelled calls count among the "
            "connection's until the server has let go of them."
        )
        report.add("cancel", "until no lease was held", freed, "s")
        report.add("cancel", "leases left", survival_server.leases(target), "")
        same = ask(target, question, f"{SERVICE}Score") == before
        report.add("cancel", "answers other than before", int(not same), "")
        report.add("cancel", "memory before", memory, "MiB")
        report.add("cancel", "memory after", survival_server.resident(target), "MiB")
        complaints = survival_server.complaints(target)
        report.add("cancel", "tracebacks and internal errors in the log", len(complaints), "")
        report.notes += [f"cancel: log: {line:.300}" for line in complaints[:5]]
    finally:
        target.stop()
