"""The statistics of a training row come from earlier rows alone, and agree with a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from widedeep import statistics
from widedeep.histories import Encoded, Histories
from widedeep.statistics import (
    GENRE_PRIOR,
    PRIOR,
    Baselines,
    genre_shares,
    item_statistics,
    ordered_statistics,
    user_statistics,
    user_totals,
    without_own,
)

GENRES = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=torch.bool)


def rows(count: int = 60, seed: int = 0) -> Encoded:
    torch.manual_seed(seed)
    rating = torch.randint(1, 6, (count,)).float()
    rating[::7] = float("nan")
    return Encoded(
        torch.randint(1, 5, (count,), dtype=torch.int32),
        torch.randint(1, 5, (count,), dtype=torch.int32),
        rating,
        rating.nan_to_num(5) >= 4,
        torch.randperm(count),
    )


def by_hand(train: Encoded, row: int, key: torch.Tensor, base: Baselines) -> list[float]:
    before = [
        other
        for other in range(len(train))
        if key[other] == key[row] and train.timestamp[other] < train.timestamp[row]
    ]
    likes = sum(float(train.liked[other]) for other in before)
    ratings = [float(train.rating[other]) for other in before if not train.rating[other].isnan()]
    return [
        math.log1p(len(before)) / 5,
        (likes - base.like_rate * len(before)) / (len(before) + PRIOR),
        (sum(ratings) - base.mean_rating * len(ratings)) / (len(ratings) + PRIOR),
    ]


def test_ordered_statistics_are_those_of_a_plain_loop() -> None:
    train = rows()
    base = Baselines.of(train, genre_shares(GENRES))
    shares = genre_shares(GENRES)
    found = ordered_statistics(train, shares, base)
    for row in range(len(train)):
        affinity = exposure = 0.0
        for genre in range(2):
            before = [
                other
                for other in range(len(train))
                if train.user_index[other] == train.user_index[row]
                and train.timestamp[other] < train.timestamp[row]
            ]
            weight = sum(float(shares[train.item_index[other], genre]) for other in before)
            residual = sum(
                float(shares[train.item_index[other], genre]) * (float(train.liked[other]) - base.like_rate)
                for other in before
            )
            of_item = float(shares[train.item_index[row], genre])
            affinity += of_item * residual / (weight + GENRE_PRIOR)
            usual = len(before) * float(shares[train.item_index.long(), genre].mean())
            exposure += of_item * (weight - usual) / (len(before) + PRIOR)
        user = by_hand(train, row, train.user_index, base)
        item = by_hand(train, row, train.item_index, base)
        expected = torch.tensor([*user, affinity, exposure, *item])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_a_rows_own_label_does_not_change_its_statistics() -> None:
    train = rows()
    base = Baselines.of(train, genre_shares(GENRES))
    shares = genre_shares(GENRES)
    flipped = Encoded(
        train.user_index,
        train.item_index,
        train.rating.clone(),
        train.liked.clone(),
        train.timestamp,
    )
    flipped.liked[30] = ~flipped.liked[30]
    flipped.rating[30] = 1.0
    before, after = ordered_statistics(train, shares, base), ordered_statistics(flipped, shares, base)
    assert torch.equal(before[30], after[30])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("block", [7, 2**18])
def test_a_query_sees_what_a_row_after_everything_would(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widedeep.statistics.BLOCK_ENTRIES", block)
    train = rows()
    base = Baselines.of(train, genre_shares(GENRES))
    shares = genre_shares(GENRES)
    last = Encoded(
        torch.tensor([2], dtype=torch.int32),
        torch.tensor([3], dtype=torch.int32),
        torch.tensor([3.0]),
        torch.tensor([False]),
        torch.tensor([10_000]),
    )
    extended = Encoded(*(torch.cat([getattr(train, name), getattr(last, name)]) for name in vars(train)))
    row = ordered_statistics(extended, shares, base)[-1]
    totals = user_totals(Histories.from_encoded(train, 5), shares, base)
    query = torch.cat(
        [
            user_statistics(totals[2:3], torch.tensor([3]), shares, base),
            item_statistics(train, 5, base)[3:4],
        ],
        1,
    )
    torch.testing.assert_close(row, query[0], atol=1e-5, rtol=1e-5)


def test_leaving_a_like_out_is_as_if_it_had_never_been() -> None:
    train = rows(1)
    liked = Encoded(*(getattr(train, name) for name in vars(train)))
    liked.liked[:] = True
    liked.rating[:] = float("nan")
    shares = genre_shares(GENRES)
    base = Baselines.of(rows(), shares)
    own = user_totals(Histories.from_encoded(liked, 5), shares, base)[liked.user_index.long()]
    torch.testing.assert_close(without_own(own, liked.item_index, shares, base), torch.zeros_like(own))


@pytest.mark.parametrize("count", [0, 1, 2, 3000])
@pytest.mark.parametrize("block", [1, 5, 100, 10_000])
def test_the_blocks_are_whole_groups_and_of_no_matter(
    count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(block)).sort().values
    groups[count // 2 : count * 3 // 4] = 20
    groups = groups.sort().values
    blocks = list(statistics._Before(groups).blocks(block))
    assert [row for start, end in blocks for row in range(start, end)] == list(range(count))
    for start, _ in blocks[1:]:
        assert groups[start] != groups[start - 1]
    if count > 2:
        train, shares = rows(count), genre_shares(GENRES)
        base = Baselines.of(train, shares)
        whole = ordered_statistics(train, shares, base)
        monkeypatch.setattr(statistics, "BLOCK", block)
        torch.testing.assert_close(ordered_statistics(train, shares, base), whole, rtol=0, atol=1e-6)
