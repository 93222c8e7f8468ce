from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from boards import small_config

from widedeep import Recommender
from widedeep.choices import choose_calibration, choose_shares, least_within_an_error, level, surpasses
from widedeep.closed_form import CrossSettings, choose_recency
from widedeep.datasets import Dataset
from widedeep.features import FeatureProcessor, ItemTable
from widedeep.histories import Encoded, Histories
from widedeep.like_objective import LikeObjective
from widedeep.mixture import Mixture, ranking_targets
from widedeep.model import WideDeepNet
from widedeep.split import Split
from widedeep.vocabulary import Vocabulary
from widedeep.wide import ItemWeights

CPU = torch.device("cpu")


def objective(trained: Recommender, parts: Split) -> LikeObjective:
    train, validation = (trained.processor.encode(part) for part in (parts.train, parts.validation))
    validation.liked[::5] = ~validation.liked[::5]  # or else all could be told apart, at an infinite scale
    return LikeObjective(trained.config, trained.net, train, trained.histories, validation, CPU)


def test_level_brings_the_mean_probability_to_the_like_rate(board: Dataset, board_split: Split) -> None:
    trained, _ = Recommender.fit(small_config(), board, board_split.train, board_split.validation)
    like = objective(trained, board_split)
    with torch.no_grad():
        trained.net.like.linear.bias += 1.5
    level(trained.net, like)
    logits, liked = like.training_logits()
    assert math.isclose(float(logits.sigmoid().mean()), float(liked.mean()), abs_tol=1e-4)


def test_calibration_is_the_best_scale_and_shift(board: Dataset, board_split: Split) -> None:
    trained, _ = Recommender.fit(small_config(), board, board_split.train, board_split.validation)
    like = objective(trained, board_split)

    def loss() -> float:
        logits, liked = like.validation_logits()
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, liked))

    trained.net.calibration.copy_(torch.tensor([1.0, 0.0]))
    before = loss()
    choose_calibration(trained.net, like)
    scale, shift = trained.net.calibration.tolist()
    best = loss()
    assert best < before
    for wrong in ((scale * 1.2, shift), (scale * 0.8, shift), (scale, shift + 0.2), (scale, shift - 0.2)):
        trained.net.calibration.copy_(torch.tensor(wrong))
        assert loss() > best


def walks(shuffled: bool) -> tuple[Encoded, Encoded]:
    """400 users walk along a line of 60 items and like where they are; or the same likes in random order."""
    torch.manual_seed(0)
    items = torch.stack([torch.arange(start, start + 12) for start in torch.randint(1, 48, (400,)).tolist()])
    if shuffled:
        items = items.gather(1, torch.rand(400, 12).argsort(1))
    users = torch.arange(1, 401)[:, None].expand(400, 12)
    times = torch.arange(12).expand(400, 12)

    def encoded(columns: slice) -> Encoded:
        user, item, time = (part[:, columns].reshape(-1) for part in (users, items, times))
        return Encoded(
            user.int(),
            item.int(),
            torch.full(user.shape, 5.0),
            torch.ones(user.shape, dtype=torch.bool),
            time,
        )

    return encoded(slice(0, 10)), encoded(slice(10, 12))


@pytest.mark.parametrize("shuffled", [False, True])
def test_recency_is_chosen_where_the_order_tells_something(shuffled: bool) -> None:
    train, validation = walks(shuffled)
    table = ItemTable([""] * 61, [], torch.zeros(61, 0, dtype=torch.bool), torch.zeros(61, dtype=torch.int32))
    processor = FeatureProcessor(
        Vocabulary(np.arange(1, 401)), Vocabulary(np.arange(1, 61)), 60, table, torch.zeros(401, 0), [], 4.0
    )
    config = small_config().model
    net = WideDeepNet.for_data(config, processor, train).eval()
    net.deep_share.fill_(0.0)
    histories = Histories.from_encoded(train, 401)
    targets = ranking_targets(validation, 61, 0)
    recency, settings = choose_recency(net, histories, targets, config, CrossSettings(l2=2.0))
    assert (recency > 0) != shuffled
    assert settings.l2 in (1.0, 2.0, 4.0)
    assert float(net.recency) == pytest.approx(recency)
    assert torch.equal(net.wide.weights, ItemWeights.fit(histories, 61, settings.l2).weights)
    asked = dataclasses.replace(config, recency=0.3, wide_l2=2.0)
    found = choose_recency(net, histories, targets, asked, CrossSettings(l2=2.0))
    assert found == (0.3, CrossSettings(l2=2.0)), "as asked for"


def test_a_deep_side_of_noise_gets_no_share(board: Dataset, board_split: Split) -> None:
    trained, _ = Recommender.fit(small_config(), board, board_split.train, board_split.validation)
    torch.manual_seed(0)
    for parameter in trained.net.deep.parameters():
        torch.nn.init.normal_(parameter)
    validation = trained.processor.encode(board_split.validation)
    with torch.no_grad():
        targets = ranking_targets(validation, trained.net.item_count, 0)
        choose_shares(Mixture(trained.net, targets, trained.histories))
    noise = float(trained.net.deep_share) * (1 - float(trained.net.factor_share))
    assert noise <= 0.2


class Told(Mixture):
    """A mixture whose values are given: those of the wide side, and by how much the best shares are above."""

    def __init__(self, net: WideDeepNet, gain: torch.Tensor) -> None:
        self.net = net
        self.gain = gain

    def update_deep(self) -> None:
        pass

    def ndcg(self, deep_share: float, factor_share: float, k: int = 10) -> torch.Tensor:  # noqa: ARG002
        near = max(0.1, 1 - abs(deep_share - 1.0) / 2 - abs(factor_share - 0.25))
        return 0.5 + self.gain * (near if deep_share else 0.0)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (torch.tensor([0.04, 0.01, 0.03, 0.02, float("nan")]), (1.0, 0.25)),  # everybody gains
        (torch.tensor([0.3, -0.1, -0.05, 0.02]), (0.7, 0.5)),  # one does: nothing is sure
        (torch.tensor([0.3]), (0.7, 0.5)),  # nobody to compare with
        (torch.tensor([-0.04, -0.01, -0.03, -0.02]), (0.0, 0.0)),  # everybody loses
    ],
)
def test_equal_shares_are_left_for_what_is_surely_better(
    trained: Recommender, gain: torch.Tensor, expected: tuple[float, float]
) -> None:
    net = copy.deepcopy(trained.net)
    choose_shares(Told(net, gain))
    assert (float(net.deep_share), float(net.factor_share)) == pytest.approx(expected)
    choose_shares(Told(net, gain), deep_shares=(0.5,), factor_shares=(0.5,))
    assert (float(net.deep_share), float(net.factor_share)) == (0.5, 0.5), "as asked for"


def test_the_least_is_taken_of_what_is_about_as_good() -> None:
    spread = torch.tensor([0.3, -0.3, 0.1, -0.1, float("nan")])
    assert least_within_an_error({0.4: 0.51 + spread, 0.0: 0.5 + spread * 0, 0.2: 0.5 - spread}) == 0.0
    assert least_within_an_error({0.4: 0.6 + spread, 0.2: 0.59 + spread, 0.0: 0.3 + spread}) == 0.4
    assert least_within_an_error({0.2: torch.tensor([0.4]), 0.4: torch.tensor([0.6])}) == 0.2, (
        "nobody to compare"
    )


def test_surpassing_is_a_one_sided_paired_test() -> None:
    generator = torch.Generator().manual_seed(0)
    nothing = torch.randn(2000, 50, generator=generator)
    share = sum(surpasses(row, torch.zeros(50)) for row in nothing) / 2000
    assert share == pytest.approx(0.05, abs=0.02)
