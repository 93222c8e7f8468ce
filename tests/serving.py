"""A real model on data whose answer is known, and a real server in a thread."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.app import Server
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from server.settings import ServerSettings
from widedeep.recommender import Recommender

USERS = range(1, 41)
ITEMS = range(1, 31)


def withheld(user: int, item: int) -> bool:
    return (user * 7 + item * 3) % 5 == 0


def checkerboard() -> pd.DataFrame:
    """Even users like even items, odd users odd ones; a fifth of the pairs is withheld."""
    return pd.DataFrame(
        [
            (user, item, 5.0 if user % 2 == item % 2 else 1.0, 1_000_000 + 100 * user + item)
            for user in USERS
            for item in ITEMS
            if not withheld(user, item)
        ],
        columns=["user_id", "item_id", "rating", "timestamp"],
    )


@functools.cache
def recommender() -> Recommender:
    """Titles "Film 1" …; odd items are Comedy|Drama, even ones Action; years 1991 to 2010, item 30's unknown.

    Nobody has seen the films 31 and 32.
    """
    known = [*ITEMS, 31, 32]
    films = pd.DataFrame(
        {
            "item_id": known,
            "title": [f"Film {item}" for item in known],
            "genres": ["Comedy|Drama" if item % 2 else "Action" for item in known],
            "year": [0 if item == 30 else 1990 + item % 20 for item in known],
        }
    )
    return Recommender.build_and_train(
        checkerboard(), movie_features=films, epochs=20, batch_size=128, device="cpu"
    )


def save_bundle(folder: Path) -> Path:
    path = folder / "model.pth"
    recommender().save(path)
    return path


class Running:
    """A server on a free port, and the loop that it lives on."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop

    @property
    def target(self) -> str:
        return self.server.address

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    @contextmanager
    def stub(self) -> Iterator[pb_grpc.RecommenderStub]:
        with grpc.insecure_channel(self.target) as channel:
            yield pb_grpc.RecommenderStub(channel)


@contextmanager
def running(model: Path | str, load: bool = True, source: Any = None, **settings: Any) -> Iterator[Running]:
    """A server of `model` in a thread of its own; drained at the end, unless the test has done so.

    source  reads its settings anew
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started = None
    try:
        server = Server(
            ServerSettings(
                **{
                    "model": str(model),
                    "port": 0,
                    "device": "cpu",
                    "grace": 5.0,
                    "cache_models": "cache_dir" in settings,
                    **settings,
                }
            ),
            source,
        )
        started = Running(server, loop)
        started.run(server.start())
        if load:
            started.run(server.load())
        yield started
    finally:
        if started is not None:
            started.run(started.server.drain())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def recommend(stub: Any, **fields: Any) -> pb.RecommendResponse:
    return stub.Recommend(pb.RecommendRequest(**fields), timeout=20)


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """The code and the field that a call is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    return caught.value.code(), field_of(status)


def field_of(status: Any) -> str:
    for detail in status.details:
        found = error_details_pb2.BadRequest()
        if detail.Unpack(found):
            return found.field_violations[0].field
    return ""


class Feed:
    """Requests of a stream that stays open until `close`."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def send(self, **fields: Any) -> None:
        self._queue.put(pb.RecommendStreamRequest(request=pb.RecommendRequest(**fields)))

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def eventually(condition: Any, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def score_message(item_ids: list[str], **fields: Any) -> pb.ScoreStreamRequest:
    return pb.ScoreStreamRequest(request=pb.ScoreRequest(item_ids=item_ids, **fields))
