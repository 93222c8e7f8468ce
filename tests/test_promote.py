"""The gate's rules, and the alias that moves by them and back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from experiment_runs import Done, ok, run
from mlflow.tracking import MlflowClient

from experiments import aliases, gate, promote, publish, registry
from experiments.gate import judge, resolve
from experiments.judging import per_user_of
from experiments.progress import Console
from experiments.registry import Version
from widedeep.errors import ChampionMovedError, DataError, RegistryError

pytest_plugins = ["experiment_fixtures"]
GENERATOR = np.random.default_rng(0)
USERS = 400
CHAMPION = pd.Series(GENERATOR.uniform(0.2, 0.6, USERS), index=range(USERS))
NOISE = pd.Series(GENERATOR.normal(0, 0.02, USERS), index=range(USERS))
NOISE -= NOISE.mean()
BASELINES = {"popularity": CHAMPION - 0.2, "item-kNN": CHAMPION - 0.05, "EASE": CHAMPION - 0.01}


def verdict(gain: float, rule: str, **changed: pd.Series) -> gate.Verdict:
    """Of a candidate that is `gain` above the champion in the mean."""
    candidate = CHAMPION + NOISE + gain
    return judge(candidate, ("version 1", CHAMPION), BASELINES | changed, rule=rule, samples=2000)


@pytest.mark.parametrize(
    ("gain", "rule", "passed"),
    [
        (0.01, "better", True),  # 2.5% up, far outside of the noise
        (0.0, "better", False),
        (-0.01, "better", False),
        (0.0, "not-worse", True),  # the interval of the relative difference is about ±0.5%
        (-0.001, "not-worse", True),
        (-0.01, "not-worse", False),  # 2.5% down
        (0.01, "strict", True),
        (0.0, "strict", False),
    ],
)
def test_the_rule_decides(gain: float, rule: str, passed: bool) -> None:
    assert verdict(gain, rule).passed is passed


def test_strict_needs_every_baseline_beaten() -> None:
    lost = verdict(0.01, "strict", EASE=CHAMPION + 0.02)
    assert not lost.passed
    assert "of EASE" in lost.reason
    assert verdict(0.01, "better", EASE=CHAMPION + 0.02).passed


def test_the_interval_is_that_of_the_paired_difference() -> None:
    found = verdict(0.01, "better").duels[0].difference
    assert found.absolute.value == pytest.approx(0.01)
    half = 1.96 * NOISE.std() / USERS**0.5
    assert found.absolute.low == pytest.approx(0.01 - half, rel=0.05)
    assert found.absolute.high == pytest.approx(0.01 + half, rel=0.05)
    assert found.relative.value == pytest.approx(0.01 / CHAMPION.mean())


def test_without_a_champion_popularity_must_be_beaten() -> None:
    candidate = CHAMPION + NOISE
    first = judge(candidate, None, BASELINES, rule="better", samples=500)
    assert first.passed
    assert [duel.against for duel in first.duels] == ["popularity"]
    assert "no champion yet" in first.reason
    assert not judge(candidate, None, {"popularity": CHAMPION}, rule="better", samples=500).passed
    strict = judge(candidate, None, BASELINES, rule="strict", samples=500)
    assert [duel.against for duel in strict.duels] == ["popularity", "EASE", "item-kNN"]


def test_the_same_results_are_not_better_but_not_worse() -> None:
    for rule, passed in (("better", False), ("not-worse", True)):
        found = judge(CHAMPION, ("version 1", CHAMPION), BASELINES, rule=rule, samples=500)
        assert found.passed is passed
        assert found.duels[0].difference.absolute.value == 0.0


def test_the_order_of_the_users_is_of_no_matter() -> None:
    shuffled = (CHAMPION + NOISE + 0.01).sample(frac=1.0, random_state=1)
    found = judge(shuffled, ("version 1", CHAMPION), BASELINES, rule="better", samples=2000)
    assert found.to_dict() == verdict(0.01, "better").to_dict()


def test_results_of_other_users_are_not_compared() -> None:
    with pytest.raises(DataError, match="same users"):
        judge(CHAMPION.iloc[:50], ("version 1", CHAMPION), BASELINES, rule="better")


def test_auto_is_stricter_on_the_same_data() -> None:
    assert resolve("auto", same_data=True) == "better"
    assert resolve("auto", same_data=False) == "not-worse"
    assert resolve("strict", same_data=False) == "strict"


def test_the_verdict_is_plain_numbers() -> None:
    found = verdict(0.01, "better")
    assert found.metrics()["gate/passed"] == 1.0
    low, value, high = (found.metrics()[f"gate/difference{end}"] for end in ("_low", "", "_high"))
    assert low is not None
    assert value is not None
    assert high is not None
    assert 0 < low < value < high


def test_per_user_values_are_picked_by_model() -> None:
    frame = pd.DataFrame({"model": ["a", "a", "b"], "user": ["x", "y", "x"], "ndcg_at_10": [0.1, 0.2, 0.3]})
    assert per_user_of(frame, "a").to_dict() == {"x": 0.1, "y": 0.2}


def make_versions(client: MlflowClient, count: int) -> list[Version]:
    client.create_registered_model("m")
    for _ in range(count):
        client.create_model_version("m", str(Path("source").absolute()))
    return [registry.version("m", number) for number in range(1, count + 1)]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions that have no model behind them pass for some that have."""
    monkeypatch.setattr(registry, "check_answers", lambda _: None)


def where(client: MlflowClient) -> int:
    return int(client.get_model_version_by_alias("m", "champion").version)


@pytest.mark.usefixtures("answering")
def test_an_alias_goes_back_the_way_it_came(store: MlflowClient) -> None:
    versions = make_versions(store, 3)
    for version in versions:
        aliases.move_alias(version, "champion", "a test")
    assert [move["version"] for move in aliases.history("m", "champion")] == [1, 2, 3]
    assert (
        ok("promote", "--rollback", "--register", "m").out
        == "m@champion is version 2 again; version 3 lost it.\n"
    )
    assert where(store) == 2
    assert "champion.rolled_back" in store.get_model_version("m", "3").tags
    ok("promote", "--rollback", "--register", "m")
    assert where(store) == 1
    done = run("promote", "--rollback", "--register", "m")
    assert done.status == 2
    assert "no other version had the alias before" in done.err
    assert where(store) == 1


@pytest.mark.usefixtures("answering")
def test_after_a_rollback_the_next_move_is_remembered_on_top(store: MlflowClient) -> None:
    first, second, third = make_versions(store, 3)
    for version in (first, second):
        aliases.move_alias(version, "champion", "a test")
    aliases.move_back("m", "champion")
    aliases.move_alias(third, "champion", "a test")
    before, now = aliases.move_back("m", "champion")
    assert (before.number, now.number) == (1, 3)


@pytest.mark.usefixtures("answering")
def test_a_deleted_version_is_skipped_on_the_way_back(store: MlflowClient) -> None:
    for version in make_versions(store, 3):
        aliases.move_alias(version, "champion", "a test")
    store.delete_model_version("m", "2")
    aliases.move_back("m", "champion")
    assert where(store) == 1


@pytest.mark.usefixtures("answering")
def test_an_alias_that_was_moved_by_hand_goes_back_to_the_last_that_we_know(store: MlflowClient) -> None:
    for version in make_versions(store, 3)[:2]:
        aliases.move_alias(version, "champion", "a test")
    store.set_registered_model_alias("m", "champion", "3")  # in the UI
    aliases.move_back("m", "champion")
    assert where(store) == 2


@pytest.mark.usefixtures("answering")
def test_a_move_by_hand_is_noted_by_the_next(store: MlflowClient) -> None:
    first, _, third = make_versions(store, 3)
    aliases.move_alias(first, "champion", "a test")
    store.set_registered_model_alias("m", "champion", "2")  # in the UI
    aliases.move_alias(third, "champion", "a test")
    assert [(move["version"], move["from"]) for move in aliases.history("m", "champion")] == [
        (1, None), (2, 1), (3, 2),
    ]  # fmt: skip
    aliases.move_back("m", "champion")
    assert where(store) == 2


def test_a_version_that_does_not_answer_never_gets_the_alias(store: MlflowClient) -> None:
    first, second = make_versions(store, 2)
    for version in (first, second):
        aliases.move_alias(version, "champion", "a test")
    for arguments in (["--version", "1", "--force"], ["--rollback"]):
        done = run("promote", "--register", "m", *arguments)
        assert done.status == 2
        assert "models:/m/1" in done.err
        assert where(store) == 2
    assert [move["version"] for move in aliases.history("m", "champion")] == [1, 2]


@pytest.mark.usefixtures("answering")
def test_what_the_gate_says_takes_the_place_of_what_it_said(store: MlflowClient) -> None:
    make_versions(store, 1)
    store.update_model_version("m", "1", "About it.\n\nGate: not asked.\n\nA note.")
    publish.record(registry.version("m", 1), "refused", "better", "It lost.")
    found = store.get_model_version("m", "1")
    assert found.description == "About it.\n\nGate: refused (better). It lost.\n\nA note."
    assert found.tags == {"gate": "refused", "gate.rule": "better", "gate.reason": "It lost"}
    ok("promote", "--version", "1", "--register", "m", "--force")
    found = store.get_model_version("m", "1")
    assert "refused" not in found.description
    assert "Gate: forced" in found.description
    assert "It lost" not in found.tags["gate.reason"]


@pytest.mark.usefixtures("answering")
def test_force_needs_no_gate_and_says_so(store: MlflowClient) -> None:
    make_versions(store, 2)
    done = ok("promote", "--version", "2", "--register", "m", "--force")
    assert "the gate was not asked" in done.out
    assert store.get_model_version("m", "2").tags["gate"] == "forced"
    assert "has the alias champion already" in ok("promote", "--version", "2", "--register", "m").out


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version", "9"], "m has no version 9. It has: 1, 2."),
        (["--version", "1", "--register", "other"], "other has no version 1. It has: none."),
        (["--rollback"], "No version of m has the alias champion"),
        (["--rollback", "--register", "other"], "No version of other has the alias champion"),
        (["--version", "1"], "registered without an evaluation"),
    ],
)
def test_what_cannot_be_promoted_is_explained(store: MlflowClient, arguments: list[str], said: str) -> None:
    make_versions(store, 2)
    done: Done = run("promote", *(["--register", "m"] if "--register" not in arguments else []), *arguments)
    assert done.status == 2
    assert said in done.err


def test_an_alias_that_moved_meanwhile_is_not_taken(store: MlflowClient) -> None:
    first, second, third = make_versions(store, 3)
    aliases.move_alias(first, "champion", "a test")
    aliases.move_alias(third, "champion", "someone else was faster")
    with pytest.raises(ChampionMovedError, match="while m version 2 was judged against m version 1"):
        aliases.move_alias_from(first, second, "champion", "won")
    assert where(store) == 3
    aliases.move_alias_from(third, second, "champion", "won")
    assert where(store) == 2
    assert [(move["from"], move["version"]) for move in aliases.history("m", "champion")] == [
        (None, 1),
        (1, 3),
        (3, 2),
    ]


def said(passed: bool) -> gate.Verdict:
    return gate.Verdict(passed, "better", "It is said")


def test_who_passed_against_a_champion_of_yesterday_is_judged_again(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = make_versions(store, 3)
    aliases.move_alias(first, "champion", "a test")
    asked: list[int] = []

    def judged(champion: Version | None) -> gate.Verdict:
        """Meanwhile another version becomes champion, which the second does not beat."""
        assert champion is not None
        asked.append(champion.number)
        if champion.number == 1:
            aliases.move_alias(third, "champion", "someone else was faster")
        return said(champion.number == 1)

    assert not promote.earn(second, "champion", judged, Console()).passed
    assert asked == [1, 3]
    assert where(store) == 3
    assert store.get_model_version("m", "2").tags["gate"] == "refused"
    assert (
        "m@champion moved to m version 3 while m version 2 was judged against m version 1, so it is judged again"
        in (capsys.readouterr().err)
    )


def test_an_alias_that_never_stands_still_is_given_up(store: MlflowClient) -> None:
    first, second, third = make_versions(store, 3)
    others = itertools.cycle((first, third))

    def judged(_: Version | None) -> gate.Verdict:
        aliases.move_alias(next(others), "champion", "again")
        return said(True)

    found = promote.earn(second, "champion", judged, Console())
    assert not found.passed
    assert "passed 10 times" in found.reason
    assert "promote --version 2 --register m" in found.reason
    assert store.get_model_version("m", "2").tags["gate"] == "refused"


def test_two_who_roll_back_at_once_go_one_step_back(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in make_versions(store, 3):
        aliases.move_alias(version, "champion", "a test")
    asked: list[Version] = []

    def check(version: Version) -> None:
        """While it is checked, the other is faster."""
        asked.append(version)
        if len(asked) == 1:
            aliases.move_back("m", "champion")

    monkeypatch.setattr(registry, "check_answers", check)
    with pytest.raises(RegistryError, match="moved from version 3 to version 2 meanwhile"):
        aliases.move_back("m", "champion")
    assert where(store) == 2


def test_a_model_that_there_is_not_has_no_history(store: MlflowClient) -> None:
    del store
    assert aliases.aliased("nothing", "champion") is None
    with pytest.raises(RegistryError, match="no registered model 'nothing'"):
        aliases.history("nothing", "champion")
