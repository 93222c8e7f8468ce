"""Settings out of a file, and settings that are read anew while the server runs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import grpc
import pytest
from registries import NAME, Releases, registry
from serving import Feed, Running, eventually, recommend, refusal, running, save_bundle
from test_server_process import started as process

from server.command_line import settings_from
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from server.rereading import Change
from server.settings import ServerSettings
from server.status import UnavailableError
from widedeep.errors import ConfigError, RegistryError, WideDeepError

CHAMPION = f"models:/{NAME}@champion"
USERS = [str(user) for user in range(300)]


def written(path: Path, **values: object) -> Path:
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
        for name, value in values.items()
    ]
    path.write_text("".join(lines))
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path / "s.toml", port=1000, host="::1", max_k=7, grace=2, cache_models=False, precision="float32"
    )
    found = settings_from(["--settings-file", str(path), "--port", "3000"], {"WIDEDEEP_HOST": "127.0.0.2"})
    assert (found.port, found.host, found.max_k) == (3000, "127.0.0.2", 7)
    assert (found.grace, found.cache_models, found.precision) == (2.0, False, "float32")
    assert settings_from([], {"WIDEDEEP_SETTINGS_FILE": str(path)}).port == 1000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("max_kk = 3", "max_kk is no setting. Did you mean max_k?"),
        ("xyz = 3", "xyz is no setting. --help lists them"),
        ('settings_file = "x"', "settings_file is no setting"),
        ("[model]\nname = 3", "model must be a text in quotes"),
        ("max_k = '3'", "max_k must be a number, not str"),
        ("max_k = 2.5", "max_k must be a whole number, got 2.5"),
        ("max_k = true", "max_k must be a number, not bool"),
        ("max_k = [3]", "max_k must be a whole number"),
        ("max_k = 0", "--max-k must be from 1 to 1000, got 0"),
        ("cache_models = 'no'", "cache_models must be true or false"),
        ("host = 3", "host must be a text in quotes, not int"),
        ("model = 'models:/w@a,b'", "has no weight for a"),
        ("max_k = ", "is not TOML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=text.replace("?", r"\?")):
        settings_from(["--settings-file", str(path)], {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        settings_from(["--settings-file", str(tmp_path / "none.toml")], {})


def test_what_needs_a_restart_stays() -> None:
    before = ServerSettings(model="models:/w@a")
    wanted = ServerSettings(
        model="models:/w@a=2,b=1", shadow="c", port=1, max_message_bytes=2000, max_k=3, shadow_share=0.5
    )
    change = Change.between(before, wanted)
    assert change.names == ["model", "shadow", "shadow_share", "max_k"]
    assert change.waiting == ["port", "max_message_bytes"]
    assert change.settings == dataclasses.replace(
        wanted, port=before.port, max_message_bytes=before.max_message_bytes
    )
    file = ServerSettings(model="model.pth")
    assert Change.between(file, before).waiting == Change.between(before, file).waiting == ["model"]
    with pytest.raises(ConfigError, match="is an alias of a models:/ URI"):
        Change.between(file, wanted)


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """champion is version 1, challenger version 2."""
    with registry(tmp_path) as made:
        made.move(made.add())
        made.move(made.add(), "challenger")
        yield made


class Source:
    """Settings that a test changes."""

    def __init__(self) -> None:
        self.changes: dict[str, Any] = {}
        self.server: Running

    def __call__(self) -> ServerSettings:
        return dataclasses.replace(self.first, **self.changes)

    def reread(self, **changes: Any) -> list[str]:
        self.changes = changes
        names: list[str] = self.server.run(self.server.server.reread())
        return names


@pytest.fixture
def source(releases: Releases) -> Iterator[Source]:
    """Of a server of the champion."""
    made = Source()
    cache = str(releases.folder / "cache")
    with running(
        CHAMPION, tracking_uri=releases.uri, cache_dir=cache, poll_seconds=0.05, source=made
    ) as started:
        made.server, made.first = started, started.server.settings
        yield made


def versions(stub: Any) -> dict[str, str]:
    """By user, over one stream."""
    sent = (pb.RecommendStreamRequest(request={"user_id": user, "request_id": user}) for user in USERS)
    return {reply.request_id: reply.response.model.version for reply in stub.RecommendStream(sent)}


def test_weights_move_while_a_stream_is_open_and_nothing_is_lost(source: Source) -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with source.server.stub() as stub:
        stream = stub.RecommendStream(iter(requests.get, None))
        before: dict[str, str] = {}
        for weights in (
            "",
            "=90,challenger=10",
            "=60,challenger=40",
            "=40,challenger=60",
            "=90,challenger=10",
            "",
        ):
            for user in USERS[:150]:
                requests.put(pb.RecommendStreamRequest(request={"user_id": user, "request_id": user}))
            if weights or before:  # while they are answered
                assert source.reread(model=CHAMPION + weights) == ["model"]
            old = {reply.request_id for reply in (next(stream) for _ in range(150)) if not reply.status.code}
            assert old == set(USERS[:150]), "each was answered"
            after = versions(stub)
            moved = {(before[user], after[user]) for user in after if before and before[user] != after[user]}
            assert len(moved) <= 1, "users move one way"
            assert set(after.values()) == ({"1", "2"} if weights else {"1"})
            before = after
        requests.put(None)
        assert list(stream) == []
        store = source.server.server.store
        assert eventually(lambda: not store._retiring)
        assert [model.version for model in store.status().models] == ["1"], "the other was let go"


def test_a_new_alias_may_take_over_all(source: Source) -> None:
    with source.server.stub() as stub:
        source.reread(model=f"models:/{NAME}@challenger")
        assert set(versions(stub).values()) == {"2"}
        source.reread(model=f"models:/{NAME}/1", shadow="challenger")
        assert recommend(stub, user_id="1").model.alias == ""
        assert [model.state for model in stub.ListModels(pb.ListModelsRequest()).models] == [
            pb.MODEL_STATE_SERVING, pb.MODEL_STATE_SHADOW,
        ]  # fmt: skip


def test_what_cannot_be_used_changes_nothing(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with source.server.stub() as stub:
        for changes, error in (
            ({"model": f"models:/{NAME}@nobody", "max_k": 3}, RegistryError),
            ({"model": f"{CHAMPION}=1,nobody=2", "max_k": 3}, RegistryError),
            ({"max_k": 0}, ConfigError),
            ({"model": f"{CHAMPION},", "max_k": 3}, ConfigError),
            ({"shadow": "champion", "max_k": 3}, ConfigError),
        ):
            with pytest.raises(error):
                source.reread(**changes)
            assert recommend(stub, user_id="1", k=10).model.version == "1"
        assert source.server.server.settings == source.first
        assert list(source.server.server.store._slots) == [source.server.server.store._traffic.main]
    assert caplog.text.count("The settings stay as they are") == 5


def test_an_alias_of_a_small_share_may_come_later(source: Source, releases: Releases) -> None:
    with source.server.stub() as stub:
        source.reread(model=f"{CHAMPION}=60,late=40")
        assert set(versions(stub).values()) == {"1"}
        with pytest.raises(WideDeepError, match="cannot have the largest share"):
            source.reread(model=f"{CHAMPION}=40,late=60")
        releases.move("2", "late")
        assert eventually(lambda: set(versions(stub).values()) == {"1", "2"})
        source.reread(model=f"{CHAMPION}=40,late=60")


def test_limits_change_at_once(source: Source) -> None:
    with source.server.stub() as stub:
        assert len(recommend(stub, user_id="1", k=6, exclude_seen=False).item_ids) == 6
        assert source.reread(max_k=5, queued_rankings=9, rankings_at_once=3, port=1) == [
            "max_k", "queued_rankings", "rankings_at_once",
        ]  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            recommend(stub, user_id="1", k=6)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        lane = source.server.server.lanes.rankings
        assert (lane.most_queued, lane.most_at_once) == (9, 3)
        assert source.reread() == ["max_k", "queued_rankings", "rankings_at_once"]
        assert source.reread() == []


def test_an_open_stream_gets_its_new_limits(source: Source) -> None:
    with source.server.stub() as stub:
        feed = Feed()
        stream = stub.RecommendStream(iter(feed))
        feed.send(user_id="1")
        assert next(stream).response.item_ids
        source.reread(stream_idle=0.05)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        feed.close()


def test_a_drain_ends_what_is_being_taken_on(source: Source) -> None:
    release = threading.Event()
    server, loop = source.server.server, source.server.loop
    source.changes = {"model": f"{CHAMPION}=90,challenger=10"}
    server.store._thread.submit(release.wait, 60)
    rereading = asyncio.run_coroutine_threadsafe(server.reread(), loop)
    assert eventually(lambda: len(server.store._slots) == 2)
    draining = asyncio.run_coroutine_threadsafe(server.drain(), loop)
    assert eventually(lambda: server.store._stopped)
    release.set()
    draining.result(30)
    with pytest.raises((UnavailableError, CancelledError)):
        rereading.result(30)
    assert server.settings == source.first


def test_a_shorter_poll_counts_at_once(source: Source, releases: Releases) -> None:
    source.reread(poll_seconds=3600.0)
    source.reread(poll_seconds=0.05)
    releases.move("2")
    assert eventually(lambda: source.server.server.store.current.version == "2")


def test_a_hangup_reads_the_file_anew(tmp_path: Path) -> None:
    path, fixed = tmp_path / "settings.toml", {"model": str(save_bundle(tmp_path)), "device": "cpu"}
    written(path, port=0, **fixed)
    with process("--settings-file", str(path)) as server:
        target = server.wait_for(r"serving on (127\.0\.0\.1:\d+)").group(1)
        with grpc.insecure_channel(target) as channel:
            stub = pb_grpc.RecommenderStub(channel)
            assert len(recommend(stub, user_id="1", exclude_seen=False).item_ids) == 10
            written(path, port=1, max_k=5, **fixed)
            os.kill(server.popen.pid, signal.SIGHUP)
            server.wait_for("settings that have changed: max_k\n")
            server.wait_for("port: a change of it needs a restart")
            assert refusal(lambda: recommend(stub, user_id="1", k=6)) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "k",
            )
            written(path, modle="m", max_k=7)
            os.kill(server.popen.pid, signal.SIGHUP)
            server.wait_for("ERROR The settings stay as they are: .*Did you mean model")
            assert refusal(lambda: recommend(stub, user_id="1", k=6)) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "k",
            )
        server.popen.send_signal(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in server.log
