from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from boards import small_config

from widedeep import Recommender
from widedeep.closed_form import ClosedForm, CrossSettings
from widedeep.config import Config
from widedeep.datasets import Dataset
from widedeep.errors import BundleError, ConfigError, DeviceError, EmptyDataError, TrainingError
from widedeep.factors import FactorSettings
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded
from widedeep.interactions import Interactions, concatenate
from widedeep.like_objective import LikeObjective
from widedeep.split import Split
from widedeep.training import Chosen, FitResult, Step, fit


def run(config: Config, board: Dataset, parts: Split, **options: object) -> FitResult:
    _, result = Recommender.fit(config, board, parts.train, parts.validation, **options)  # type: ignore[arg-type]
    return result


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in result.net.state_dict().items()}


def same(first: FitResult, second: FitResult) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_learns_the_checkerboard(board: Dataset, board_split: Split) -> None:
    result = run(small_config(), board, board_split)
    assert result.validation["auc"] > 0.95
    assert result.validation["ndcg_at_10"] > 0.3  # a shuffled list of the 24 unseen items reaches about 0.2
    losses = [row["train_loss"] for row in result.curves if row["head"] == "ranking"]
    assert losses[-1] < losses[0]


def test_same_seed_same_weights_and_the_callers_random_numbers_are_left_alone(
    board: Dataset, board_split: Split
) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first = run(small_config(), board, board_split)
    assert torch.equal(torch.rand(3), expected)
    assert same(first, run(small_config(), board, board_split))
    assert not same(first, run(small_config(seed=1), board, board_split))


def test_known_choices_change_nothing_but_the_time(board: Dataset, board_split: Split) -> None:
    first = run(small_config(), board, board_split)
    assert same(first, run(small_config(), board, board_split, known=first.chosen.closed_form))
    others = dataclasses.replace(
        first.chosen.closed_form, factors=FactorSettings(dim=3, epochs=1), recency=0.5
    )
    result = run(small_config(), board, board_split, known=others)
    assert result.chosen.closed_form == others
    assert result.net.factors.vectors.shape[1] == 3


def test_early_stopping_keeps_the_best_epoch(board: Dataset, board_split: Split) -> None:
    result = run(small_config(epochs=40, patience=2, learning_rate=0.05), board, board_split)
    like = [row for row in result.curves if row["head"] == "like"]
    best = like[0]
    for row in like:
        best = row if row["log_loss"] < best["log_loss"] - LikeObjective.notable else best
    assert 1 < best["epoch"] < 38
    assert result.chosen.like_epochs == best["epoch"]
    assert len(like) == min(40, best["epoch"] + 2)
    again = run(small_config(epochs=best["epoch"], patience=2, learning_rate=0.05), board, board_split)
    assert torch.equal(result.net.like.item.weight, again.net.like.item.weight)


def test_what_was_chosen_is_taken_over(board: Dataset, board_split: Split) -> None:
    closed_form = ClosedForm(True, CrossSettings(20.0, 0.1, 0.2), 0.2, FactorSettings(dim=4, epochs=2))
    chosen = Chosen(2, 1, 0.3, 0.25, closed_form, calibration=(0.5, 0.25), popularity_half_life=3.0)
    train = concatenate([board_split.train, board_split.validation])
    _, result = Recommender.fit(small_config(), board, train, chosen=chosen)
    assert [(row["head"], row["epoch"]) for row in result.curves] == [
        ("ranking", 1),
        ("ranking", 2),
        ("like", 1),
    ]
    assert result.validation == {}
    assert Chosen.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert result.chosen == chosen
    assert result.net.factors.vectors.shape[1] == 4
    assert result.net.calibration.tolist() == [0.5, 0.25]
    assert float(result.net.deep_share) == pytest.approx(0.3)
    assert float(result.net.popularity.sum()) < train.liked(4.0).sum()


@pytest.mark.parametrize("stop_at", [("ranking", 3, 1), ("ranking", 15, 1), ("like", 1, 1), ("like", 5, 2)])
def test_resumes_to_the_same_weights(
    board: Dataset, board_split: Split, tmp_path: Path, stop_at: tuple[str, int, int]
) -> None:
    whole = run(small_config(), board, board_split)
    path = str(tmp_path / "state.ckpt")

    def interrupt(step: Step) -> None:
        if (step.head, step.epoch, step.done) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_config(checkpoint=path), board, board_split, progress=interrupt)
    seen: list[Step] = []
    resumed = run(small_config(checkpoint=path, resume=True), board, board_split, progress=seen.append)
    assert same(whole, resumed)
    assert resumed.curves == whole.curves
    if stop_at[0] == "like":
        assert not any(step.head == "ranking" for step in seen)


def test_a_checkpoint_of_something_else_is_refused(
    board: Dataset, board_split: Split, tmp_path: Path
) -> None:
    path = str(tmp_path / "state.ckpt")
    run(small_config(checkpoint=path), board, board_split)
    with pytest.raises(ConfigError, match="another configuration or other data"):
        run(small_config(checkpoint=path, resume=True, seed=5), board, board_split)
    (tmp_path / "state.fit.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(BundleError, match="not a checkpoint"):
        run(small_config(checkpoint=path, resume=True), board, board_split)
    with pytest.raises(BundleError, match="Could not write"):
        run(small_config(checkpoint=str(tmp_path / "missing" / "state.ckpt")), board, board_split)


def test_progress_counts_every_batch(board: Dataset, board_split: Split) -> None:
    steps: list[Step] = []
    run(small_config(epochs=2, ranking_epochs=2), board, board_split, progress=steps.append)
    like = [step for step in steps if step.head == "like" and step.epoch == 1]
    assert [step.done for step in like] == [*range(1, like[0].total + 1), like[0].total]
    assert like[-1].metrics.keys() == {"train_loss", "log_loss", "auc"}


@pytest.mark.parametrize("setting", ["learning_rate", "ranking_learning_rate"])
def test_divergence_is_named(board: Dataset, board_split: Split, setting: str) -> None:
    patient = {"ranking_epochs": 100, "ranking_patience": 100}
    reckless = small_config(**{setting: 10.0}, precision="fp16", **patient)
    with pytest.raises(TrainingError, match=f"Lower {setting} .now 10"):
        run(reckless, board, board_split)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_reaches_what_fp32_does(board: Dataset, board_split: Split, precision: str) -> None:
    full = run(small_config(precision="fp32"), board, board_split)
    mixed = run(small_config(precision=precision), board, board_split)
    assert full.validation["auc"] > 0.9
    assert mixed.validation["auc"] == pytest.approx(full.validation["auc"], abs=0.02)
    assert mixed.validation["ndcg_at_10"] == pytest.approx(full.validation["ndcg_at_10"], abs=0.05)
    assert mixed.curves != full.curves, "or else nothing was rounded"


def test_without_ratings_the_like_head_tells_interactions_from_random_items(
    board: Dataset, board_split: Split
) -> None:
    def liked_only(rows: Interactions) -> Interactions:
        keep = rows.take(rows.liked(4.0))
        return Interactions(keep.user_id, keep.item_id, None, None)

    train, validation = liked_only(board_split.train), liked_only(board_split.validation)
    recommender, result = Recommender.fit(small_config(epochs=60, patience=10), board, train, validation)
    assert result.validation["auc"] > 0.8
    own, other = recommender.score(2, [4, 8, 12]).mean(), recommender.score(2, [3, 7, 11]).mean()
    assert own > other


def test_nothing_to_learn_from(board: Dataset, board_split: Split) -> None:
    disliked = board_split.train.take(~board_split.train.liked(4.0))
    with pytest.raises(EmptyDataError, match=r"None of the .* training interactions is liked"):
        Recommender.fit(small_config(), board, disliked)


def test_a_device_that_is_not_there(board: Dataset, board_split: Split) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(DeviceError, match="device=cuda is not usable here"):
        run(small_config(device="cuda"), board, board_split)


@pytest.mark.gpu
def test_cuda_reaches_what_the_cpu_does(board: Dataset, board_split: Split) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    cpu = run(small_config(), board, board_split)
    cuda = run(small_config(device="cuda", precision="fp32"), board, board_split)
    assert cuda.validation["auc"] == pytest.approx(cpu.validation["auc"], abs=0.02)


def test_fit_takes_encoded_rows(board: Dataset, board_split: Split) -> None:
    processor = FeatureProcessor.fit(board_split.train, board.items, board.users, 4.0)
    encoded: Encoded = processor.encode(board_split.train)
    result = fit(small_config(epochs=1, ranking_epochs=1), processor, encoded)
    assert result.net.item_count == processor.item_count
