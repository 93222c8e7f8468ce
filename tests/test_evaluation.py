import dataclasses
import itertools
import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from widedeep.errors import EmptyDataError, WideDeepError
from widedeep.evaluation import evaluate, mean_ndcg, user_keys
from widedeep.histories import Encoded, Histories
from widedeep.rankings import Targets, rank_users
from widedeep.report import METRICS, Report, comparison
from widedeep.thresholds import Thresholds


@dataclasses.dataclass
class World:
    train: Histories
    test: Encoded
    test_users: torch.Tensor
    item_count: int
    warm_count: int

    @property
    def genres(self) -> torch.Tensor:
        """(item_count, 4) bool: the binary digits of the item's number, so every 16th item has none."""
        return torch.arange(self.item_count)[:, None] >> torch.arange(4) & 1 > 0

    def evaluate(self, ranker, **options) -> Report:
        return evaluate(
            ranker,
            train=self.train,
            test=options.pop("test", self.test),
            test_users=self.test_users,
            item_count=self.item_count,
            warm_count=self.warm_count,
            **{"bootstrap": 20, "genres": self.genres, **options},
        )


def _encoded(rows: list[tuple[int, int, bool]]) -> Encoded:
    users, items, liked = (list(column) for column in zip(*rows, strict=True))
    return Encoded(
        torch.tensor(users, dtype=torch.int32),
        torch.tensor(items, dtype=torch.int32),
        torch.tensor([4.5 if value else 2.0 for value in liked]),
        torch.tensor(liked),
        torch.arange(len(users)),
    )


def _world(users: int = 30, warm: int = 40, seed: int = 0, train_rows: int = 8, test_rows: int = 5) -> World:
    """Known users 1 to `users`, two unknown ones, and three items that the training part does not have."""
    generator = np.random.default_rng(seed)
    train, test, keys = [], [], []
    for user in range(1, users + 3):
        known = user <= users
        items = generator.permutation(np.arange(1, warm + 4)).tolist()
        own = [item for item in items if item <= warm][: train_rows if known else 0]
        train += [(user, item, bool(generator.random() < 0.6)) for item in own]
        held = [item for item in items if item not in own][:test_rows]
        held[-1] = 0 if generator.random() < 0.3 else held[-1]
        test += [(user if known else 0, item, bool(generator.random() < 0.6)) for item in held]
        keys += [1000 - user] * test_rows
    shuffled = generator.permutation(len(test))
    return World(
        Histories.from_encoded(_encoded(train), users + 1),
        _encoded([test[row] for row in shuffled]),
        torch.tensor(keys)[shuffled],
        warm + 4,
        warm,
    )


class FixedScores:
    """The same scores for a user whenever asked; few levels, so that there are ties."""

    name = "fixed"

    def __init__(self, world: World, levels: int = 4, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randint(levels, (len(world.train), world.item_count), generator=generator).float()
        self.asked: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def rank_scores(self, user_index, histories):
        self.asked.append((user_index.clone(), histories.item_index.clone(), histories.liked.clone()))
        return self.table[user_index.long()]


class Oracle:
    """Knows the test part and puts its liked items first."""

    name = "oracle"

    def __init__(self, world: World) -> None:
        self.table = torch.zeros(len(world.train), world.item_count)
        liked = world.test.take(world.test.liked)
        self.table[liked.user_index.long(), liked.item_index.long()] = 1

    def rank_scores(self, user_index, histories):  # noqa: ARG002
        return self.table[user_index.long()]


class RandomScores:
    name = "random"

    def __init__(self, world: World, seed: int = 0) -> None:
        self.item_count = world.item_count
        self.generator = torch.Generator().manual_seed(seed)

    def rank_scores(self, user_index, histories):  # noqa: ARG002
        return torch.rand(len(histories), self.item_count, generator=self.generator)


class SameForAll:
    """Gives out a view of its own scores."""

    name = "same for all"

    def __init__(self, world: World) -> None:
        self.scores = torch.arange(world.item_count).float()

    def rank_scores(self, user_index, histories):  # noqa: ARG002
        return self.scores.expand(len(histories), -1)


class Tabled:
    """Like-probabilities from a table by user and item."""

    def __init__(self, world: World, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.rand(len(world.train), world.item_count, generator=generator)

    def probability(self, user_index, item_index, histories):
        assert len(histories) == len(self.table)
        return self.table[user_index.long(), item_index.long()]


def _by_hand(world: World, table: torch.Tensor) -> pd.DataFrame:
    """The ranking metrics in plain Python, a user at a time."""
    rows = []
    users = int((world.train.lengths > 0).sum())
    had = Counter(world.train.item_index.tolist())
    tested = list(
        zip(
            world.test_users.tolist(),
            world.test.user_index.tolist(),
            world.test.item_index.tolist(),
            world.test.liked.tolist(),
            strict=True,
        )
    )
    for key in sorted({row[0] for row in tested}):
        user = next(row[1] for row in tested if row[0] == key)
        relevant = [row[2] for row in tested if row[0] == key and row[3]]
        if not relevant:
            continue
        seen = set(world.train.take(torch.tensor([user])).item_index.tolist())
        candidates = [item for item in range(1, world.warm_count + 1) if item not in seen]
        ranking = sorted(candidates, key=lambda item: (-float(table[user, item]), item))
        gain = [1 / math.log2(place + 1) for place in range(1, 11)]
        places = [place for place, item in enumerate(ranking, 1) if item in relevant]
        rows.append(
            {
                "user": key,
                "ndcg_at_10": sum(gain[p - 1] for p in places if p <= 10) / sum(gain[: len(relevant)]),
                "recall_at_10": sum(p <= 10 for p in places) / len(relevant),
                "recall_at_20": sum(p <= 20 for p in places) / len(relevant),
                "hit_rate_at_10": float(any(p <= 10 for p in places)),
                "mrr": 1 / places[0] if places else 0.0,
                "novelty_at_10": np.mean([math.log2(users / max(1, had[item])) for item in ranking[:10]]),
                "diversity_at_10": np.mean(
                    [
                        1 - (one & other).bit_count() / (one | other).bit_count()
                        for one, other in itertools.combinations([item % 16 for item in ranking[:10]], 2)
                        if one and other
                    ]
                ),
                "relevant": len(relevant),
                "history": len(seen),
            }
        )
    return pd.DataFrame(rows).set_index("user")


@pytest.mark.parametrize("levels", [1, 4, 10**6])
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_the_report_is_what_plain_python_finds(levels, block, monkeypatch):
    world = _world()
    monkeypatch.setattr("widedeep.rankings.BLOCK_SCORES", block * world.item_count)
    monkeypatch.setattr("widedeep.rankings.CACHED_SCORES", 3 * world.item_count)
    ranker = FixedScores(world, levels)
    report = world.evaluate(ranker)
    expected = _by_hand(world, ranker.table)
    pd.testing.assert_frame_equal(report.per_user, expected, check_dtype=False)
    assert report.users == len(expected)
    for name in expected.columns.drop(["relevant", "history"]):
        found = report.metrics[name]
        assert found.value == pytest.approx(expected[name].mean())
        assert found.low <= found.value <= found.high


def test_a_ranker_that_knows_the_test_part_scores_one():
    world = _world(test_rows=3)
    known = world.test.item_index.clamp(min=1, max=world.warm_count)  # all of it can be recommended
    train = world.train.where(torch.zeros(len(world.train.item_index), dtype=torch.bool))
    keep = world.test.user_index > 0
    test = dataclasses.replace(world.test, item_index=known).take(keep)
    world = dataclasses.replace(world, train=train, test=test, test_users=world.test_users[keep])
    report = world.evaluate(Oracle(world))
    for name in ("ndcg_at_10", "recall_at_10", "recall_at_20", "hit_rate_at_10", "mrr"):
        assert (report.metrics[name].value, report.metrics[name].low) == (1, 1), name


def test_a_random_ranker_scores_what_theory_says():
    world = _world(users=3000, warm=60, train_rows=10, test_rows=4)
    known = (
        (world.test.item_index > 0)
        & (world.test.item_index <= world.warm_count)
        & (world.test.user_index > 0)
    )
    world = dataclasses.replace(world, test=world.test.take(known), test_users=world.test_users[known])
    report = world.evaluate(RandomScores(world), bootstrap=400)
    candidates = world.warm_count - 10
    for k in (10, 20):
        found = report.metrics[f"recall_at_{k}"]
        slack = (
            found.high - found.low
        ) / 2  # the interval and as much again: two seeds of a hundred fall out
        assert found.low - slack <= k / candidates <= found.high + slack
        assert found.high - found.low < 0.03
    alone = report.per_user["relevant"] == 1
    expected = np.mean([1 / place for place in range(1, candidates + 1)])
    assert report.per_user["mrr"][alone].mean() == pytest.approx(expected, abs=0.02)


def test_labels_and_test_items_change_nothing_that_a_ranker_is_asked():
    world = _world()
    truth, flipped, swapped = (FixedScores(world) for _ in range(3))
    world.evaluate(truth)
    world.evaluate(flipped, test=dataclasses.replace(world.test, liked=~world.test.liked))
    permuted = torch.randperm(len(world.test), generator=torch.Generator().manual_seed(0))
    world.evaluate(
        swapped,
        test=dataclasses.replace(
            world.test, liked=world.test.liked[permuted], item_index=world.test.item_index[permuted]
        ),
    )
    assert sum(len(users) for users, _, _ in truth.asked) == len(world.test_users.unique())
    for other in (flipped, swapped):
        for ours, theirs in zip(truth.asked, other.asked, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_neither_seen_nor_cold_nor_unknown_items_are_listed():
    world = _world()
    found = rank_users(
        FixedScores(world),
        targets := Targets.of(world.test, world.test_users),
        world.train,
        item_count=world.item_count,
        warm_count=world.warm_count,
    )
    for user, items in zip(targets.user_index.tolist(), found.top.tolist(), strict=True):
        seen = world.train.take(torch.tensor([user])).item_index.tolist()
        assert not set(items) & set(seen)
        assert all(1 <= item <= world.warm_count for item in items)


def test_a_ranker_keeps_its_scores_to_itself():
    world = _world()
    ranker = SameForAll(world)
    before = ranker.scores.clone()
    world.evaluate(ranker)
    assert torch.equal(ranker.scores, before)


def test_lists_end_where_the_candidates_do():
    world = _world(warm=14, train_rows=8)
    ranker = FixedScores(world)
    report = world.evaluate(ranker)
    pd.testing.assert_frame_equal(report.per_user, _by_hand(world, ranker.table), check_dtype=False)
    ranker.table[:, 5:] = -torch.inf  # a ranker may withhold items, too
    targets = Targets.of(world.test, world.test_users)
    found = rank_users(ranker, targets, world.train, item_count=world.item_count, warm_count=14)
    assert found.top.max() <= 4
    assert not found.hits[found.top == 0].any()


@pytest.mark.parametrize("block", [50, 2**17])
def test_like_metrics_are_those_of_scikit_learn(block, monkeypatch):
    monkeypatch.setattr("widedeep.evaluation.BLOCK_ROWS", block)
    world = _world(users=200)
    model = Tabled(world)
    report = world.evaluate(FixedScores(world), like_model=model, bootstrap=200)
    probability = model.table[world.test.user_index.long(), world.test.item_index.long()].numpy()
    liked = world.test.liked.numpy()
    assert report.metrics["auc"].value == pytest.approx(roc_auc_score(liked, probability), abs=1e-6)
    assert report.metrics["log_loss"].value == pytest.approx(sklearn_log_loss(liked, probability), abs=1e-6)
    assert report.rows == len(liked)
    for name in ("auc", "log_loss", "calibration_error"):
        found = report.metrics[name]
        assert found.low < found.value < found.high
    thresholds = Thresholds.from_curve(report.curves["thresholds"])
    binned = np.floor(probability.astype(float) * 1000)
    assert thresholds.average_precision == pytest.approx(average_precision_score(liked, binned))
    assert thresholds.rows == len(liked)
    curve = report.curves["reliability"]
    assert sum(curve["count"]) == len(liked)
    bins = zip(curve["mean_probability"], curve["positive_rate"], curve["count"], strict=True)
    gaps = [abs(promised - came) * rows for promised, came, rows in bins]
    assert report.metrics["calibration_error"].value == pytest.approx(sum(gaps) / len(liked))


def test_where_everything_is_liked_there_is_no_auc():
    world = _world()
    test = dataclasses.replace(world.test, liked=torch.ones_like(world.test.liked))
    report = world.evaluate(FixedScores(world), test=test, like_model=Tabled(world))
    assert all(math.isnan(report.metrics[name].value) for name in ("auc", "log_loss", "calibration_error"))
    assert report.curves == {}
    assert list(report.metrics) == list(METRICS)


def test_without_genres_diversity_is_not_measured():
    world = _world()
    for genres in (None, torch.zeros(world.item_count, 3, dtype=torch.bool)):
        report = world.evaluate(FixedScores(world), genres=genres)
        assert math.isnan(report.metrics["diversity_at_10"].value)
        assert report.per_user["diversity_at_10"].isna().all()
        assert report.metrics["novelty_at_10"].low < report.metrics["novelty_at_10"].value


def test_slices_add_up():
    world = _world(users=60)
    report = world.evaluate(FixedScores(world))
    history = [part for part in report.slices if part.kind == "history" and part.metric == "ndcg_at_10"]
    assert [part.part for part in history] == ["none (0)", "short (1-19)"]
    assert sum(part.size for part in history) == report.users
    mean = sum(part.size * part.value.value for part in history) / report.users
    assert mean == pytest.approx(report.metrics["ndcg_at_10"].value)
    popularity = [part for part in report.slices if part.kind == "popularity"]
    assert [part.part.split()[0] for part in popularity] == ["head", "middle", "tail", "not"]
    assert sum(part.size for part in popularity) == int(world.test.liked.sum())
    hits = sum(part.size * part.value.value for part in popularity)
    assert hits == pytest.approx((report.per_user["recall_at_20"] * report.per_user["relevant"]).sum())
    assert popularity[-1].value.value == 0
    counts = torch.bincount(world.train.item_index, minlength=world.item_count)
    assert popularity[-1].size == int((counts[world.test.item_index[world.test.liked].long()] == 0).sum())


def test_a_report_goes_through_json_and_parquet(tmp_path):
    world = _world()
    _, ids = user_keys(np.array([f"user {key}" for key in range(1000)], dtype=object))
    report = world.evaluate(FixedScores(world), like_model=Tabled(world), user_ids=ids)
    assert report.per_user.index[0].startswith("user ")
    report.per_user.to_parquet(tmp_path / "per_user.parquet")
    per_user = pd.read_parquet(tmp_path / "per_user.parquet")
    again = Report.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)), per_user)
    assert again == report
    pd.testing.assert_frame_equal(again.per_user, report.per_user, check_index_type=False)
    assert list(report.table()["metric"]) == list(METRICS)
    assert comparison([report, again]).shape == (2, 1 + len(METRICS))


def test_the_seed_decides_the_intervals():
    world = _world()
    model = Tabled(world)
    first, second, other = (
        world.evaluate(FixedScores(world), like_model=model, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second
    assert first.metrics["auc"] != other.metrics["auc"]
    assert first.metrics["auc"].value == other.metrics["auc"].value


def test_user_keys_are_one_per_distinct_id():
    keys, ids = user_keys(np.array(["b", "a", "b", "10"], dtype=object))
    assert [ids[key] for key in keys.tolist()] == ["b", "a", "b", "10"]
    assert len(ids) == 3


def test_one_key_for_two_users_is_refused():
    world = _world()
    world.test_users[:] = 1
    with pytest.raises(ValueError, match="one key to users of different user_index"):
        world.evaluate(FixedScores(world))


def test_mean_ndcg_is_that_of_the_report():
    world = _world()
    ranker = FixedScores(world)
    targets = Targets.of(world.test, world.test_users)
    found = mean_ndcg(ranker, targets, world.train, item_count=world.item_count, warm_count=world.warm_count)
    assert found == pytest.approx(world.evaluate(ranker).metrics["ndcg_at_10"].value)


def test_progress_ends_with_all_users(monkeypatch):
    world = _world()
    monkeypatch.setattr("widedeep.rankings.BLOCK_SCORES", 10 * world.item_count)
    told = []
    world.evaluate(FixedScores(world), progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 32), (20, 32), (30, 32), (32, 32)]


def test_nan_scores_are_an_error():
    world = _world()
    ranker = FixedScores(world)
    ranker.table[3, 1:] = math.nan
    with pytest.raises(WideDeepError, match="fixed scored 1 of 32 users with NaN"):
        world.evaluate(ranker)


@pytest.mark.parametrize("value", [math.nan, 1.5, -0.1])
def test_probabilities_out_of_range_are_an_error(value):
    world = _world()
    model = Tabled(world)
    model.table[:] = value
    with pytest.raises(WideDeepError, match="not within 0 and 1"):
        world.evaluate(FixedScores(world), like_model=model)


def test_a_test_part_without_likes_is_an_error():
    world = _world()
    with pytest.raises(EmptyDataError, match="none of them liked"):
        world.evaluate(
            FixedScores(world), test=dataclasses.replace(world.test, liked=torch.zeros_like(world.test.liked))
        )


def test_scores_of_another_shape_are_refused():
    world = _world()
    ranker = FixedScores(world)
    ranker.table = ranker.table[:, :-1]
    with pytest.raises(ValueError, match="expected"):
        world.evaluate(ranker)
