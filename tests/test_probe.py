"""The questions in a bundle, and a model that no longer gives the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from widedeep import Recommender, probe
from widedeep.errors import BundleError


@pytest.fixture
def path(trained: Recommender, tmp_path: Path) -> Path:
    trained.save(tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.fixture
def loaded(path: Path) -> Recommender:
    return Recommender.load(path, device="cpu")


def test_a_loaded_model_gives_the_stored_answers(loaded: Recommender) -> None:
    stored = loaded.probe
    assert stored is not None
    assert stored.items.shape == stored.scores.shape == stored.probabilities.shape
    assert stored.items.shape[0] == len(stored.users) + 1 == probe.USERS + 1
    for row, user in enumerate(stored.users.tolist()):
        user_id = loaded.processor.users.id_of(user)
        answer = loaded.recommend(user_id, probe.DEPTH, exclude_seen=False)
        assert loaded.processor.items.index_of(answer.item_ids).tolist() == stored.items[row].tolist()
        assert loaded.score(user_id, answer.item_ids).tolist() == pytest.approx(
            stored.probabilities[row].tolist()
        )
    assert probe.check(loaded) == 0


def test_saving_is_deterministic(trained: Recommender, path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "model.pth"
    again.parent.mkdir()
    trained.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_changed_model_is_told_by_how_much(loaded: Recommender) -> None:
    with torch.no_grad():
        loaded.net.calibration[1] += 0.5  # of the like logit alone
    with pytest.raises(BundleError, match=r"differ by up to 0\.\d+, allowed is 0\.0001"):
        probe.check(loaded)


@pytest.mark.parametrize("part", ["wide", "like"])
def test_both_heads_are_asked(loaded: Recommender, part: str) -> None:
    with torch.no_grad():
        if part == "wide":
            loaded.net.wide.weights.mul_(-1)
        else:
            next(loaded.net.like.parameters()).add_(1)
    with pytest.raises(BundleError, match="answers otherwise"):
        probe.check(loaded)


def test_scores_that_are_no_numbers_are_refused(loaded: Recommender) -> None:
    with torch.no_grad():
        loaded.net.calibration.fill_(float("nan"))
    with pytest.raises(BundleError, match="up to nan"):
        probe.check(loaded)


def test_equal_scores_may_change_places(loaded: Recommender) -> None:
    stored = loaded.probe
    assert stored is not None
    tied = probe.Probe(
        stored.users,
        stored.history,
        stored.items.flip(1),
        torch.zeros_like(stored.scores),
        stored.probabilities.flip(1),
    )
    with torch.no_grad():
        for part in (loaded.net.wide.weights, loaded.net.popularity):
            part.zero_()
        loaded.net.deep_share.zero_()
    assert tied.difference(loaded) == 0


def test_a_bundle_without_a_probe_loads(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["probe"]
    torch.save(content, path)
    loaded = Recommender.load(path, device="cpu")
    assert loaded.probe is None
    assert probe.check(loaded) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("users", torch.tensor([10**6], dtype=torch.int32)),
        ("items", torch.zeros(2, 3, dtype=torch.int32)),
        ("history", torch.tensor([0.5])),
        ("scores", torch.zeros(1)),
        ("scores", "x"),
    ],
)
def test_a_probe_that_does_not_fit_is_damage(path: Path, name: str, value: object) -> None:
    content = torch.load(path, weights_only=True)
    content["probe"][name] = value
    torch.save(content, path)
    with pytest.raises(BundleError, match="parts do not fit together"):
        Recommender.load(path)
