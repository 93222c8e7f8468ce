"""A served alias that moves: to good versions, to bad ones, and while the registry is away."""

from __future__ import annotations

import gc
import logging
import queue
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from registries import NAME, Releases, registry
from serving import Running, recommend, running

from server.pb import recommender_pb2 as pb
from server.store_status import ModelState, StoreStatus
from widedeep.errors import BundleError, TrackingError
from widedeep.model import WideDeepNet

POLL = 0.05
MODEL = f"models:/{NAME}@champion"


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """champion is version 1 of two good ones."""
    with registry(tmp_path) as made:
        made.add()
        made.add()
        made.move("1")
        yield made


def serving(releases: Releases, model: str = MODEL, **settings: Any) -> Any:
    return running(
        model,
        **{
            "tracking_uri": releases.uri,
            "cache_dir": str(releases.folder / "cache"),
            "poll_seconds": POLL,
            **settings,
        },
    )


def status(started: Running) -> StoreStatus:
    async def ask() -> StoreStatus:
        return started.server.store.status()

    return started.run(ask())


def served(started: Running) -> str:
    return status(started).models[0].version


def states(started: Running) -> dict[str, ModelState]:
    return {model.version: model.state for model in status(started).models}


def eventually(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.01)


def test_a_move_is_live_within_seconds(releases: Releases) -> None:
    with serving(releases, poll_seconds=2.0) as started, started.stub() as stub:
        assert recommend(stub, user_id="1").model.version == "1"
        moved = time.monotonic()
        releases.move("2")
        eventually(lambda: recommend(stub, user_id="1").model.version == "2", 5)
        assert time.monotonic() - moved < 5
        described = stub.GetModel(pb.GetModelRequest())
        assert (described.model.version, described.dataset) == ("2", "data 2")
        releases.move("1")
        eventually(lambda: served(started) == "1", 5)
        now = status(started)
        assert now.counts.reloads == 2
        assert now.registry is not None
        assert (now.registry.following, now.registry.reachable, now.registry.error) == (True, True, "")
        assert 0 <= now.registry.seconds_since_answer < 5
        assert not now.registry.from_cache


BAD = {
    "cut off": (lambda made: made.add(b"PK" + bytes(1000)), "is not a model file"),
    "no bundle of ours": (lambda made: made.add({"format": "other"}), "is not a model of widedeep"),
    "other bytes than were registered": (lambda made: made.add(digest="0" * 64), "it was changed"),
    "other answers than were stored": (lambda made: made.add(made.changed()), "differ by up to"),
    "cannot answer": (
        lambda made: made.add({"processor": {**made.content["processor"], "years": []}, "probe": None}),
        "cannot answer",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_refused_and_the_old_one_serves_on(
    releases: Releases, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, text = BAD[kind]
    bad = make(releases)
    with serving(releases) as started, started.stub() as stub:
        releases.move(bad)
        eventually(lambda: status(started).counts.refused)
        assert recommend(stub, user_id="1").model.version == "1"
        refused = status(started).models[1]
        assert (refused.version, refused.state) == (bad, ModelState.REFUSED)
        assert text in refused.reason
        assert any(
            "is refused" in record.getMessage() and record.levelno == logging.ERROR
            for record in caplog.records
        )
        time.sleep(10 * POLL)
        assert status(started).counts.refused == 1, "it is not tried at every look"
        releases.move("2")
        eventually(lambda: served(started) == "2")
        releases.move(bad)
        eventually(lambda: status(started).counts.refused == 2)
        assert served(started) == "2"


def test_a_refused_version_is_tried_again_once_its_tags_change(releases: Releases) -> None:
    version = releases.add(digest="0" * 64)
    with serving(releases) as started:
        releases.move(version)
        eventually(lambda: status(started).counts.refused)
        releases.client.delete_model_version_tag(NAME, version, "bundle_sha256")
        eventually(lambda: served(started) == version)
        assert states(started) == {version: ModelState.SERVING}


def test_a_version_without_digest_or_probe_is_served_and_said(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    version = releases.add({"probe": None}, digest="")
    with caplog.at_level(logging.INFO), serving(releases) as started:
        releases.move(version)
        eventually(lambda: served(started) == version)
    text = caplog.text
    assert "was registered without bundle_sha256: not compared" in text
    assert "its stored answers: none" in text


def test_the_registry_goes_away_and_comes_back(releases: Releases) -> None:
    with serving(releases) as started, started.stub() as stub:
        with releases.away():
            eventually(lambda: status(started).counts.failures >= 2)
            now = status(started).registry
            assert now is not None
            assert not now.reachable
            assert "There is no MLflow store" in now.error
            assert recommend(stub, user_id="1").model.version == "1"
        releases.move("2")
        eventually(lambda: served(started) == "2")
        assert status(started).registry.reachable  # type: ignore[union-attr]


def test_a_store_from_a_backup_is_read(releases: Releases) -> None:
    with serving(releases) as started:
        with releases.replaced():
            releases.move("2")
            eventually(lambda: served(started) == "2")
        eventually(lambda: served(started) == "1")


def test_the_files_go_away_and_come_back(releases: Releases) -> None:
    with serving(releases) as started:
        with releases.artifacts_away():
            releases.move("2")
            eventually(lambda: status(started).counts.failures >= 2)
            now = status(started)
            assert now.registry is not None
            assert not now.registry.reachable
            assert "There are no files of models:/films/2" in now.registry.error
            assert (served(started), now.counts.refused) == ("1", 0)
        eventually(lambda: served(started) == "2")
        assert status(started).registry.reachable  # type: ignore[union-attr]


def test_an_alias_that_is_gone_leaves_what_is_served(releases: Releases) -> None:
    with serving(releases) as started:
        releases.client.delete_registered_model_alias(NAME, "champion")
        eventually(lambda: status(started).registry.error)  # type: ignore[union-attr]
        now = status(started).registry
        assert now is not None
        assert now.reachable
        assert "is not in the registry" in now.error
        assert served(started) == "1"
        releases.move("2")
        eventually(lambda: served(started) == "2")
        releases.client.delete_model_version(NAME, "2")
        eventually(lambda: "is not in the registry" in status(started).registry.error)  # type: ignore[union-attr]
        assert served(started) == "2"


def test_a_restart_without_the_registry_serves_the_last_good_version(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(releases) as started:
        releases.move("2")
        eventually(lambda: served(started) == "2")
        releases.move(releases.add(releases.changed()))
        eventually(lambda: status(started).counts.refused)
    with releases.away():
        with serving(releases) as started, started.stub() as stub:
            assert recommend(stub, user_id="1").model.version == "2"
            now = status(started).registry
            assert now is not None
            assert (now.from_cache, now.reachable, now.seconds_since_answer) == (True, False, -1.0)
            assert "from the cache is served in its place" in caplog.text
        with pytest.raises(TrackingError), serving(releases, serve_cached_model=False):
            pass
        with pytest.raises(TrackingError), serving(releases, cache_models=False):
            pass
        with pytest.raises(TrackingError), serving(releases, model=f"models:/{NAME}@other"):
            pass
        with serving(releases) as started:
            assert status(started).registry.from_cache  # type: ignore[union-attr]
            for path in (releases.folder / "cache").rglob("*.pth"):
                path.write_bytes(b"damage")
        with pytest.raises(TrackingError), serving(releases):
            pass
    releases.move("2")
    with serving(releases, poll_seconds=0.5) as started:
        assert not status(started).registry.from_cache  # type: ignore[union-attr]


def test_what_came_from_the_cache_follows_once_the_registry_is_back(releases: Releases) -> None:
    with serving(releases):
        pass
    with releases.away():
        started = serving(releases)
        server = started.__enter__()
    try:
        eventually(lambda: not status(server).registry.from_cache)  # type: ignore[union-attr]
        assert status(server).counts.reloads == 0, "the registry says that it is this version"
        releases.move("2")
        eventually(lambda: served(server) == "2")
    finally:
        started.__exit__(None, None, None)


def test_a_start_on_a_bad_version_falls_back_to_the_last_good_one(releases: Releases) -> None:
    bad = releases.add(digest="0" * 64)
    releases.move(bad)
    with pytest.raises(BundleError, match="it was changed"), serving(releases):
        pass
    releases.move("1")
    with serving(releases):
        pass
    releases.move(bad)
    with serving(releases) as started:
        assert states(started) == {"1": ModelState.SERVING, bad: ModelState.REFUSED}
        releases.move("2")
        eventually(lambda: served(started) == "2")


def test_a_cached_version_is_not_downloaded_again(releases: Releases) -> None:
    with serving(releases) as started:
        releases.move("2")
        eventually(lambda: served(started) == "2")
        with releases.artifacts_away():
            releases.move("1")
            eventually(lambda: served(started) == "1")


def test_a_folder_that_cannot_be_written_does_not_stop_serving(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = releases.folder / "file"
    blocked.write_text("not a folder")
    with serving(releases, cache_dir=str(blocked / "cache")) as started:
        releases.move("2")
        eventually(lambda: served(started) == "2")
    assert "was not cached" in caplog.text


def test_a_model_of_the_same_name_and_number_is_another_model(releases: Releases) -> None:
    with serving(releases) as started, started.stub() as stub:
        assert stub.GetModel(pb.GetModelRequest()).dataset == "data 1"
        releases.client.delete_registered_model(NAME)
        eventually(lambda: status(started).registry.error)  # type: ignore[union-attr]
        releases.client.create_registered_model(NAME)
        assert releases.add() == "1"
        releases.move("1")
        eventually(lambda: stub.GetModel(pb.GetModelRequest()).dataset == "data 3")


def test_a_stream_that_holds_the_old_model_keeps_it_until_its_request_ends(releases: Releases) -> None:
    with serving(releases) as started:
        store = started.server.store

        async def acquire() -> Any:
            return store.acquire()

        async def release(model: Any) -> None:
            store.release(model)

        held, again = started.run(acquire()), started.run(acquire())
        freed = weakref.ref(held.recommender)
        releases.move("2")
        eventually(lambda: served(started) == "2")
        assert states(started)["1"] is ModelState.RETIRING
        assert status(started).models[1].leases == 2
        assert held.recommender.recommend(1).item_ids, "it answers what it was given"
        started.run(release(held))
        assert freed() is not None
        gc.disable()  # nothing of a model may have to wait for the collector
        try:
            started.run(release(again))
            eventually(lambda: freed() is None, 2)
        finally:
            gc.enable()
        assert states(started) == {"2": ModelState.SERVING}


def networks() -> int:
    return sum(isinstance(thing, WideDeepNet) for thing in gc.get_objects())


def test_memory_is_given_back_without_the_collector(releases: Releases) -> None:
    bad = releases.add(releases.changed())
    with serving(releases) as started:
        gc.collect()
        before = networks()
        gc.disable()
        try:
            for number in range(4):
                releases.move(bad)
                eventually(lambda: status(started).counts.refused > number)  # noqa: B023
                eventually(lambda: networks() == before, 3)
                releases.move("21"[number % 2])
                eventually(lambda: served(started) == "21"[number % 2])  # noqa: B023
                eventually(lambda: networks() == before, 3)
        finally:
            gc.enable()


def test_requests_of_both_versions_and_none_lost_while_the_alias_moves(releases: Releases) -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with serving(releases) as started, started.stub() as stub:
        stream = stub.RecommendStream(iter(requests.get, None))
        seen: list[str] = []
        for number in range(6):
            releases.move("21"[number % 2])
            wanted = "21"[number % 2]
            end = time.monotonic() + 15
            while not seen or seen[-1] != wanted:
                assert time.monotonic() < end
                requests.put(
                    pb.RecommendStreamRequest(request={"user_id": "1", "request_id": str(len(seen))})
                )
                answer = next(stream)
                assert (answer.status.code, answer.request_id) == (0, str(len(seen)))
                seen.append(answer.response.model.version)
        requests.put(None)
        assert list(stream) == []
        assert status(started).counts.reloads == 6
