"""Several aliases by weight: who is answered by which, what is bound to a version, and what is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from registries import NAME, Releases, registry
from serving import Running, eventually, recommend, refusal, running, score_message

from server.client import Client, ClientError, Recommend
from server.client.__main__ import main
from server.pb import recommender_pb2 as pb
from server.store_status import ModelState
from server.traffic import Target, Traffic
from widedeep.errors import BundleError, ConfigError, RegistryError

USERS = [str(user) for user in range(2000)]
BOTH = f"models:/{NAME}@champion=80,challenger=20"


def aliases(model: str) -> dict[str, str]:
    traffic = Traffic.of(model)
    return {user: traffic.target_of(user).alias for user in USERS}


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        ("models:/w@a", {"a": 1.0}),
        ("models:/w@a=7", {"a": 1.0}),
        ("models:/w@a=95,b=5", {"a": 0.95, "b": 0.05}),
        ("models:/w@b=1,a=3", {"a": 0.75, "b": 0.25}),
        ("models:/w@b=1,a=1", {"b": 0.5, "a": 0.5}),
        ("models:/w@a=0.5,b-1=.25,c_2=1e0", {"c_2": 4 / 7, "a": 2 / 7, "b-1": 1 / 7}),
    ],
)
def test_weights_of_any_sum_the_largest_first(model: str, shares: dict[str, float]) -> None:
    found = Traffic.of(model)
    assert {target.alias: share for target, share in found.shares.items()} == pytest.approx(shares)
    assert [target.alias for target in found.shares] == list(shares)
    assert found.main == Target("w", next(iter(shares)))


def test_versions_and_files_are_one_target() -> None:
    assert Traffic.of("models:/w/3").shares == {Target("w", version="3"): 1.0}
    assert Traffic.of("folder/model.pth").main == Target("model.pth")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("models:/w@a=1,a=2", "names a twice"),
        ("models:/w@a,b", "has no weight for a"),
        ("models:/w@a=1,b", "has no weight for b"),
        ("models:/w@a=0,b=1", "the weight of a must be a number above 0, got '0'"),
        ("models:/w@a=-1,b=1", "above 0, got '-1'"),
        ("models:/w@a=nan,b=1", "above 0, got 'nan'"),
        ("models:/w@a=inf,b=1", "above 0, got 'inf'"),
        ("models:/w@a=x", "above 0, got 'x'"),
        ("models:/w@a=", "above 0, got ''"),
        ("models:/w@a=1,", "'' is no alias"),
        ("models:/w@=1", "'' is no alias"),
        ("models:/w@a b", "'a b' is no alias"),
        ("models:/w/3=95", "is not a model of the registry"),
        ("models:/w/3,4", "is not a model of the registry"),
    ],
)
def test_references_of_another_form(model: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Traffic.of(model)


@pytest.mark.parametrize(
    ("model", "shadow", "text"),
    [
        ("model.pth", "b", "is an alias of a models:/ URI"),
        ("models:/w@a", "a", "is what answers already"),
        ("models:/w@a=2,b=1", "a", "is what answers already"),
        ("models:/w@a", "b=5", "must be an alias"),
    ],
)
def test_shadows_of_another_form(model: str, shadow: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Traffic.of(model, shadow)


def test_a_shadow_may_answer_some() -> None:
    traffic = Traffic.of("models:/w@a=2,b=1", "b")
    assert traffic.targets == [Target("w", "a"), Target("w", "b")]
    assert Traffic.of("models:/w/3", "b").targets == [Target("w", version="3"), Target("w", "b")]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_shares_of_users_are_those_of_the_weights(share: float) -> None:
    found = Counter(aliases(f"models:/w@a={1 - share},b={share}").values())
    bound = 4 * (share * (1 - share) * len(USERS)) ** 0.5  # four standard deviations
    assert abs(found["b"] - share * len(USERS)) < bound


def test_users_are_drawn_apart_for_each_model() -> None:
    first, second = (
        {user for user, alias in aliases(f"models:/{name}@a=1,b=1").items() if alias == "a"} for name in "vw"
    )
    both = len(first & second)
    assert abs(both - len(USERS) / 4) < 4 * (len(USERS) * 3 / 16) ** 0.5


def test_a_user_is_drawn_alike_in_every_process_and_release() -> None:
    traffic = Traffic.of("models:/w@b=1,a=1")
    drawn = "".join(traffic.target_of(user).alias for user in USERS[:32])
    assert drawn == "aabaaaabbbabbaabbbbaaabaabbaaabb", "a change of the hash would move everybody"


def test_only_the_difference_moves() -> None:
    before, after = aliases("models:/w@a=95,b=5"), aliases("models:/w@b=10,a=90")
    moved = [user for user in USERS if before[user] != after[user]]
    assert {before[user] for user in moved} == {"a"}
    assert abs(len(moved) - 0.05 * len(USERS)) < 4 * (0.0475 * len(USERS)) ** 0.5
    assert aliases("models:/w@a=950,b=50") == before


def test_nobody_leaves_an_alias_that_grows_at_an_end() -> None:
    before = aliases("models:/w@a=60,b=30,c=10")
    after = aliases("models:/w@a=60,b=20,c=20")
    assert {(before[user], after[user]) for user in USERS} == {("a", "a"), ("b", "b"), ("b", "c"), ("c", "c")}


def test_without_a_user_the_request_id_decides_or_chance() -> None:
    traffic = Traffic.of("models:/w@a=1,b=1")
    by_request = {request_id: traffic.target_of("", request_id).alias for request_id in USERS}
    assert by_request == aliases("models:/w@a=1,b=1")
    assert traffic.target_of("7", "one") == traffic.target_of("7", "another")
    drawn = Counter(traffic.target_of().alias for _ in range(2000))
    assert abs(drawn["a"] - 1000) < 6 * 500**0.5


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """champion is version 1, challenger version 2."""
    with registry(tmp_path) as made:
        made.move(made.add())
        made.move(made.add(), "challenger")
        yield made


def serving(releases: Releases, model: str = BOTH, **settings: Any) -> Any:
    cache = str(releases.folder / "cache")
    return running(
        model, **{"tracking_uri": releases.uri, "cache_dir": cache, "poll_seconds": 0.05, **settings}
    )


def versions(stub: Any, count: int = 200) -> dict[str, str]:
    """By user, over one stream."""
    sent = (
        pb.RecommendStreamRequest(request={"user_id": user, "request_id": user}) for user in USERS[:count]
    )
    return {reply.request_id: reply.response.model.version for reply in stub.RecommendStream(sent)}


def statuses(started: Running) -> dict[str, Any]:
    async def ask() -> Any:
        return started.server.store.status()

    return {f"{model.alias}:{model.state}": model for model in started.run(ask()).models}


def test_each_user_is_always_answered_by_one_version(releases: Releases) -> None:
    expected = {user: "12"[alias == "challenger"] for user, alias in aliases(BOTH).items()}
    with serving(releases) as started, started.stub() as stub:
        first = versions(stub)
        assert first == {user: expected[user] for user in first}
        assert versions(stub) == first
        for user in USERS[:20]:
            model = recommend(stub, user_id=user).model
            assert (model.version, model.alias) == (
                expected[user],
                "challenger" if expected[user] == "2" else "champion",
            )
            assert stub.Score(pb.ScoreRequest(user_id=user, item_ids=["1"])).model.version == expected[user]
            assert (
                next(iter(stub.ScoreStream(iter([score_message(["1"], user_id=user)])))).response.model
                == model
            )
        drawn = Counter(
            stub.SimilarItems(pb.SimilarItemsRequest(item_ids=["1"])).model.version for _ in range(100)
        )
        assert 0 < drawn["2"] < 60
        same = {
            stub.SimilarItems(pb.SimilarItemsRequest(item_ids=["1"], request_id="x")).model.version
            for _ in range(5)
        }
        assert len(same) == 1
        slots = stub.GetModel(pb.GetModelRequest()).slots
        assert [(slot.model.alias, slot.model.version, slot.share, slot.state) for slot in slots] == [
            ("champion", "1", 0.8, pb.MODEL_STATE_SERVING),
            ("challenger", "2", 0.2, pb.MODEL_STATE_SERVING),
        ]


def test_each_alias_is_followed_by_itself(releases: Releases) -> None:
    with serving(releases) as started, started.stub() as stub:
        before = versions(stub)
        releases.move(releases.add(), "challenger")
        assert eventually(lambda: statuses(started)["challenger:serving"].version == "3")
        assert versions(stub) == {user: version.replace("2", "3") for user, version in before.items()}
        bad = releases.add(releases.changed())
        releases.move(bad, "challenger")
        assert eventually(lambda: statuses(started).get("challenger:refused"))
        assert set(versions(stub).values()) == {"1", "3"}
        assert started.server.store.status().counts.refused == 1


def test_one_version_of_two_aliases_is_loaded_once(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), serving(releases) as started, started.stub() as stub:
        challenger = next(model for model in started.server.store._loaded() if model.version == "2")
        releases.move("2")
        assert eventually(lambda: statuses(started)["champion:serving"].version == "2")
        assert set(versions(stub).values()) == {"2"}
        assert started.server.store.main().recommender is challenger.recommender
        answers = {recommend(stub, user_id=user).model.alias for user in USERS[:50]}
        assert answers == {"champion", "challenger"}
        releases.move("1", "challenger")
        assert eventually(lambda: statuses(started)["challenger:serving"].version == "1")
        assert set(versions(stub).values()) == {"1", "2"}, "what was shared lives on with one of them"
        assert caplog.text.count("model films version 2") == 1
    with releases.away(), serving(releases) as started:
        found = {alias: model.version for alias, model in statuses(started).items()}
        assert found == {"champion:serving": "2", "challenger:serving": "1"}, "it is in the cache of both"


def test_the_largest_share_answers_for_an_alias_that_is_not_there(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    releases.client.delete_registered_model_alias(NAME, "challenger")
    with serving(releases) as started, started.stub() as stub:
        assert "models:/films@challenger has no model yet, so the largest share answers" in caplog.text
        assert set(versions(stub).values()) == {"1"}
        listed = stub.ListModels(pb.ListModelsRequest()).models
        assert [(found.model.alias, found.state) for found in listed] == [
            ("champion", pb.MODEL_STATE_SERVING), ("challenger", pb.MODEL_STATE_ABSENT),
        ]  # fmt: skip
        assert "is not in the registry" in listed[1].reason
        releases.move("2", "challenger")
        assert eventually(lambda: "challenger:serving" in statuses(started))
        assert set(versions(stub).values()) == {"1", "2"}
        assert started.server.store.status().counts.reloads == 0, "it has taken over from none"


def test_a_bad_version_does_not_keep_the_server_from_starting(releases: Releases) -> None:
    releases.move(releases.add(releases.changed()), "challenger")
    with serving(releases, cache_models=False) as started, started.stub() as stub:
        assert set(versions(stub).values()) == {"1"}
        assert "differ by up to" in statuses(started)["challenger:absent"].reason
    with (
        pytest.raises(BundleError),
        serving(releases, f"models:/{NAME}@champion=1,challenger=2", cache_models=False),
    ):
        pass
    with pytest.raises(RegistryError), serving(releases, f"models:/{NAME}@other=2,champion=1"):
        pass


def test_a_request_can_be_bound_to_a_version(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"models:/{NAME}@champion"
    with serving(releases, model, shadow="challenger") as started, Client(started.target) as client:
        for version in "12":
            assert client.recommend(1, model_version=version).model.version == version
            assert client.score(1, [1], model_version=version).model.version == version
            assert client.similar([1], model_version=version).model.version == version
            replies = client.recommend_stream([Recommend(user, model_version=version) for user in range(20)])
            assert {reply.answer.model.version for reply in replies if reply.answer} == {version}
            assert main(["recommend", "--target", started.target, "--model-version", version]) == 0
            assert f"films version {version}" in capsys.readouterr().out
        assert client.recommend(1).model.version == "1"
        with pytest.raises(ClientError) as caught:
            client.recommend(1, model_version="3")
        found = caught.value
        assert (found.code, found.field, found.reason) == (
            "FAILED_PRECONDITION", "model_version", "VERSION_NOT_SERVED",
        )  # fmt: skip
        assert "Served now: 1, 2" in str(found)
        (reply,) = client.recommend_stream([Recommend(1, model_version="9" * 200)])
        assert reply.error is not None
        assert reply.error.reason == "VERSION_NOT_SERVED"


def test_what_is_not_held_any_more_is_refused(releases: Releases) -> None:
    with serving(releases, f"models:/{NAME}@champion") as started, started.stub() as stub:
        ask = lambda: recommend(stub, user_id="1", model_version="1")  # noqa: E731
        assert ask().model.version == "1"
        releases.move("2")
        assert eventually(lambda: started.server.store.current.version == "2")
        assert refusal(ask) == (grpc.StatusCode.FAILED_PRECONDITION, "model_version")
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        info = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) for detail in rpc_status.from_call(caught.value).details)
        assert info.reason == "VERSION_NOT_SERVED"


def test_a_file_has_a_version_to_be_bound_to(releases: Releases) -> None:
    path = releases.folder / "version-1" / "model.pth"
    with running(path) as started, started.stub() as stub:
        version = recommend(stub, user_id="1").model.version
        assert recommend(stub, user_id="1", model_version=version).item_ids
        assert ModelState.SERVING in {model.state for model in statuses(started).values()}
