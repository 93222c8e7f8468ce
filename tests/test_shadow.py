"""The shadow: how far it agrees, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registries import NAME, Releases, registry
from serving import Running, eventually, recommend, running

from server.client import Client
from server.client.__main__ import main
from server.pb import recommender_pb2 as pb
from server.shadow import QUEUED, Agreement

MODEL = f"models:/{NAME}@champion"


def other(releases: Releases) -> dict[str, Any]:
    """Content of a model that ranks and scores otherwise."""
    state = dict(releases.content["state"])
    for name in ("wide.weights", "deep.item_vectors", "factors.vectors"):
        state[name] = state[name].flip(0)
    state["calibration"] = state["calibration"] * 0.0  # a like is as likely as not
    return {"state": state, "probe": None}


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """Versions 1 and 2 are alike, 3 is another model; champion is 1, challenger 2."""
    with registry(tmp_path) as made:
        made.move(made.add())
        made.move(made.add(), "challenger")
        made.add(other(made))
        yield made


def serving(releases: Releases, **settings: Any) -> Any:
    return running(
        MODEL, **{"shadow": "challenger", "tracking_uri": releases.uri, "poll_seconds": 0.05, **settings}
    )


def agreement(started: Running) -> Agreement:
    return started.server.shadow.agreement


def ask(stub: Any, count: int) -> None:
    """`count` rankings and as many scored requests, one after the other."""
    for user in range(1, count + 1):
        assert recommend(stub, user_id=str(user), k=5, exclude_seen=False).model.version == "1"
        stub.Score(pb.ScoreRequest(user_id=str(user), item_ids=["1", "2", "3"]))


def test_lists_that_differ() -> None:
    found = Agreement()
    found.add_ranking([1, 2, 3, 4], ["1", "2", "5", "6"])
    found.add_ranking([1, 2], [2])
    found.add_ranking([], [])
    found.add_scores(np.array([0.5, 0.25]), np.array([0.25, 0.5]))
    assert (found.rankings, found.overlap, found.same_first) == (3, 0.5 + 0.5 + 1.0, 2)
    assert (found.scores, found.difference) == (1, 0.25)


def test_a_model_agrees_with_itself_and_less_with_another(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(releases) as started, started.stub() as stub, Client(started.target) as client:
        ask(stub, 10)
        assert eventually(lambda: agreement(started).rankings + agreement(started).scores >= 10)
        listed = {status.model.alias: status for status in client.models()}
        assert listed["champion"].agreement is None
        assert (listed["challenger"].state, listed["challenger"].share) == ("SHADOW", 0.0)
        found = listed["challenger"].agreement
        assert found is not None
        assert found.mean_overlap > 0.95, (
            "batches of other sizes differ by a millionth, which may turn a tie around"
        )
        assert found.same_first_share > 0.75
        assert found.mean_difference < 1e-5
        assert (found.compared_version, found.failed_count) == ("1", 0)

        releases.move("3", "challenger")
        assert eventually(lambda: any(model.version == "3" for model in started.server.store._loaded()))
        ask(stub, 20)
        assert eventually(lambda: agreement(started).rankings > 3 and agreement(started).scores > 3)
        assert agreement(started).version == "3", "another version is another count"
        (found,) = (status.agreement for status in client.models() if status.agreement)
        assert found.mean_overlap < 0.9
        assert found.mean_difference > 0.01
        assert main(["models", "--target", started.target]) == 0
        assert "rankings as by version 1; " in capsys.readouterr().out


def test_what_is_bound_to_a_version_or_not_shared_is_not_compared(releases: Releases) -> None:
    with serving(releases, shadow_share=0.0) as started, started.stub() as stub:
        ask(stub, 3)
        assert agreement(started) == Agreement()
        started.server.shadow.share = 1.0
        recommend(stub, user_id="1", model_version="1")
        assert agreement(started) == Agreement()
        recommend(stub, user_id="1", explain=3)
        assert eventually(lambda: agreement(started).rankings == 1)


def test_what_it_cannot_answer_is_counted(releases: Releases) -> None:
    with serving(releases) as started, started.stub() as stub:
        shadow = next(model for model in started.server.store._loaded() if model.version == "2")
        shadow.recommender = None  # type: ignore[assignment]
        ask(stub, 2)
        assert eventually(lambda: agreement(started).failed >= 2)
        assert agreement(started).rankings == 0


def test_a_shadow_that_is_overloaded_delays_and_fails_nobody(releases: Releases) -> None:
    release = threading.Event()
    with serving(releases) as started, started.stub() as stub:
        ask(stub, 1)
        started.server.shadow.lane.executor.submit(release.wait, 60)
        begun = time.monotonic()
        ask(stub, QUEUED)
        assert time.monotonic() - begun < 30, "the shadow stands still for a minute"
        found = agreement(started)
        assert found.dropped > 0
        assert started.server.shadow.lane.queued <= QUEUED
        release.set()
        assert eventually(lambda: found.rankings + found.scores + found.dropped == 2 * (QUEUED + 1))
        assert eventually(lambda: not started.server.shadow._tasks)
        shadow = next(model for model in started.server.store._loaded() if model.version == "2")
        assert shadow.leases == 0


def test_a_drain_does_not_wait_for_the_shadow(releases: Releases) -> None:
    release = threading.Event()
    with serving(releases, grace=30.0) as started, started.stub() as stub:
        started.server.shadow.lane.executor.submit(release.wait, 60)
        ask(stub, 3)
        begun = time.monotonic()
        started.run(started.server.drain())
        assert time.monotonic() - begun < 20
        assert all(model.leases == 0 for model in started.server.store._loaded())
        release.set()
