"""The item half computed once: the scores of the network, answers of many as of one, nothing kept alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.benchmarks import made_up
from widedeep import ModelConfig, Query, Recommender, ScoreQuery, SimilarQuery
from widedeep.bags import Settings
from widedeep.catalogue import Catalogue, Moments
from widedeep.errors import RequestError
from widedeep.histories import Histories
from widedeep.wide import ItemWeights

CONFIG = ModelConfig(embedding_dim=8, hidden=(32, 16), ranking_hidden=32, ranking_dim=16, factor_dim=24)
TOLERANCE = 1e-5  # of ranking scores, whose deviation is 1 over the catalogue
RELATIVE = 1e-6  # of a batch's answers to single ones, relative to the largest


@pytest.fixture(scope="module")
def random() -> Recommender:
    return made_up.recommender(900, users=80, config=CONFIG)


@contextmanager
def settings(recommender: Recommender, **values: float) -> Iterator[Settings]:
    """The network's buffers of these names set, and put back afterwards."""
    buffers = {name: getattr(recommender.net, name) for name in values}
    kept = {name: buffer.clone() for name, buffer in buffers.items()}
    for name, value in values.items():
        buffers[name].fill_(value)
    yield recommender._rankings.settings()
    for name, buffer in buffers.items():
        buffer.copy_(kept[name])


def differences(recommender: Recommender, users: torch.Tensor) -> torch.Tensor:
    """(users, warm_count) between the catalogue's scores and the network's."""
    net, inputs = recommender.net, recommender.inputs
    chosen = recommender._rankings.settings()
    ids = [recommender.processor.users.id_of(user) if user else None for user in users.tolist()]
    asked = [inputs.ask_ranking(Query(user), likes_only=chosen.likes_only) for user in ids]
    catalogue = Catalogue(net)
    found = catalogue.scores([one.past for one in asked], chosen)
    catalogue.popular(found, [row for row, one in enumerate(asked) if one.cold_start is not None])
    expected = net.rank_scores(users, recommender.histories.take(users))
    return found[:, 1:] - expected[:, 1 : net.warm_count + 1]


@pytest.mark.parametrize("recency", [0.0, 0.7])
@pytest.mark.parametrize("likes_only", [False, True])
@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 0.4), (0.5, 1.0)])
def test_scores_are_the_networks(
    random: Recommender, trained: Recommender, shares: tuple[float, float], likes_only: bool, recency: float
) -> None:
    values = {
        "deep_share": shares[0],
        "factor_share": shares[1],
        "likes_only": likes_only,
        "recency": recency,
    }
    for recommender in (random, trained):
        with settings(recommender, **values):
            for users in (torch.arange(40), torch.tensor([7])):
                assert differences(recommender, users).abs().max() < TOLERANCE


@pytest.mark.parametrize("form", ["dense", "product", "sparse"])
def test_every_form_of_the_crosses(random: Recommender, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on few items, so that some are not crossed; the sparse form has even fewer."""
    if form == "sparse":
        monkeypatch.setattr("widedeep.crossed.ITEM_LIMIT", 50)
        monkeypatch.setattr("widedeep.wide.NEIGHBOURS", 8)
    generator = np.random.default_rng(0)
    users = 400 if form == "dense" else 60
    rows = [sorted(generator.choice(np.arange(5, 200), 12, replace=False).tolist()) for _ in range(users)]
    histories = Histories.from_lists(rows, [[True] * 12] * users, [[5.0] * 12] * users)
    fitted = ItemWeights.fit(histories, random.net.item_count, 5.0)
    assert (fitted.is_sparse, fitted.is_product) == (form == "sparse", form == "product")
    monkeypatch.setitem(random.net._modules, "wide", fitted)
    assert differences(random, torch.arange(1, 30)).abs().max() < TOLERANCE


def test_moments_lose_nothing_where_the_mean_is_large() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3000, 8, generator=generator) * 0.01 + 3.0
    users, bias = torch.randn(5, 8, generator=generator), torch.randn(3000, generator=generator) * 0.01 - 7
    spread, mean = Moments.over(vectors, bias).of(users)
    products = users.double() @ vectors.double().T + bias.double()
    direct = users @ vectors.T + bias
    for found, plain, exact in (
        (spread, direct.std(1, correction=0), products.std(1, correction=0)),
        (mean, direct.mean(1), products.mean(1)),
    ):
        error = (found[:, 0].double() - exact).abs().max()
        assert error < max(2 * float((plain.double() - exact).abs().max()), 1e-6)


def test_probabilities_are_the_networks(random: Recommender, trained: Recommender) -> None:
    for recommender in (random, trained):
        net = recommender.net
        users = torch.arange(recommender.processor.user_count)
        items = torch.arange(1, net.item_count)[:: max(1, net.item_count // 150)]
        ids = recommender.processor.items.ids_of(items.numpy())
        queries = [ScoreQuery(recommender.processor.users.id_of(user), ids) for user in users[1:].tolist()]
        found = recommender.score_batch([ScoreQuery(None, ids), *queries])
        pairs = torch.cartesian_prod(users, items)
        totals = net.totals(recommender.histories)
        expected = net.like_logits(pairs[:, 0], pairs[:, 1], pairs[:, 0], totals).sigmoid()
        difference = torch.from_numpy(np.concatenate([one.probabilities for one in found])) - expected
        assert difference.abs().max() < 1e-6


def test_item_halves_that_are_too_large_to_keep(random: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    query = ScoreQuery(3, ["1", "900", "7"])
    kept = random.score_batch([query])[0].probabilities
    monkeypatch.setattr("widedeep.like_split.MOST_VALUES", 0)
    again = Recommender(
        random.net, random.processor, random.histories, random.config, random.chosen, random.about
    )
    assert again.score_batch([query])[0].probabilities == pytest.approx(kept, abs=1e-6)


def random_query(generator: np.random.Generator, kind: int, items: int, users: int) -> object:
    """Any of the three kinds, with any of its fields, one in ten of them not to be answered."""

    def some(most: int) -> list[object]:
        drawn = generator.integers(1, items + 60, generator.integers(1, most + 1)).tolist()
        return [str(item) if generator.random() < 0.5 else item for item in drawn]

    lucky = lambda share: generator.random() < share  # noqa: E731
    options: dict[str, object] = {}
    if kind < 2:
        options["user_id"] = int(generator.integers(0, users + 10)) if lucky(0.8) else None
        if lucky(0.4):
            options["history"] = some(30)
            if lucky(0.5):
                options["history_ratings"] = generator.uniform(1, 5, len(options["history"])).tolist()  # type: ignore[arg-type]
        options["fallback"] = "error" if lucky(0.3) else "popularity"
    if kind == 1:
        return ScoreQuery(item_ids=generator.integers(1, items + 2, 8).tolist(), **options)  # type: ignore[arg-type]
    options["k"] = int(generator.choice([0, 1, 10, 50, 1000], p=[0.05, 0.2, 0.45, 0.2, 0.1]))
    for name, share, value in (
        ("candidates", 0.15, some(40)),
        ("exclude_items", 0.3, some(20)),
        ("genres", 0.15, [f"genre {generator.integers(0, 21)}"]),
        ("year_from", 0.15, int(generator.integers(1930, 2020))),
        ("year_to", 0.15, int(generator.integers(1930, 2020))),
        ("include_cold_items", 0.2, True),
    ):
        if lucky(share):
            options[name] = value
    if kind == 2:
        return SimilarQuery(
            item_ids=generator.integers(1, items + 2, generator.integers(1, 4)).tolist(), **options
        )  # type: ignore[arg-type]
    options["exclude_seen"] = lucky(0.7)
    options["explain"] = 2 if lucky(0.1) else 0
    options["diversity"] = 0.4 if lucky(0.1) else 0.0
    return Query(**options)  # type: ignore[arg-type]


def alike(one: object, other: object) -> bool:
    """Equal but for rounding: where an item has another place, its neighbours' scores are equal to rounding."""
    if isinstance(one, RequestError):
        return type(one) is type(other) and str(one) == str(other)
    if hasattr(one, "probabilities"):
        return one.cold_start == other.cold_start and np.allclose(  # type: ignore[attr-defined]
            one.probabilities,
            other.probabilities,
            rtol=RELATIVE,
            atol=RELATIVE,  # type: ignore[attr-defined]
        )
    name = "scores" if hasattr(one, "scores") else "similarities"
    ours, theirs = (np.array(getattr(answer, name)) for answer in (one, other))
    if ours.shape != theirs.shape or one.unknown_items != other.unknown_items:  # type: ignore[attr-defined]
        return False
    scale = RELATIVE * max(1.0, float(np.abs(ours).max(initial=0)))
    if not np.allclose(ours, theirs, rtol=0, atol=2 * scale):
        return False
    moved = [
        place
        for place, pair in enumerate(zip(one.item_ids, other.item_ids, strict=True))
        if len(set(pair)) > 1
    ]  # type: ignore[attr-defined]
    gaps = np.abs(np.diff(ours))
    return all(min(gaps[max(0, place - 1) : place + 1], default=0) < 4 * scale for place in moved)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", range(3), ids=["rank", "score", "similar"])
def test_many_are_answered_as_one_by_one(random: Recommender, kind: int, seed: int) -> None:
    """Products of many rows round otherwise than those of one, so to RELATIVE and not to the bit."""
    generator = np.random.default_rng(seed)
    queries = [random_query(generator, kind, 900, 80) for _ in range(25)]
    each = (random.rank_each, random.score_each, random.similar_each)[kind]
    together = each(queries)  # type: ignore[arg-type]
    assert len(together) == len(queries)
    for query, answer in zip(queries, together, strict=True):
        assert alike(answer, each([query])[0]), query  # type: ignore[list-item]
    errors = [answer for answer in together if isinstance(answer, RequestError)]
    batch = (random.rank, random.score_batch, random.similar_batch)[kind]
    if errors:
        with pytest.raises(type(errors[0])) as caught:
            batch(queries)  # type: ignore[arg-type]
        assert str(caught.value) == str(errors[0])


def test_errors_and_answers_both_occur(random: Recommender) -> None:
    """Or the test above says little."""
    for kind, each in enumerate((random.rank_each, random.score_each, random.similar_each)):
        generator = np.random.default_rng(0)
        answers = each([random_query(generator, kind, 900, 80) for _ in range(100)])  # type: ignore[misc]
        errors = sum(isinstance(answer, RequestError) for answer in answers)
        assert 3 <= errors <= 60


def test_a_model_that_is_let_go_is_gone_at_once(trained: Recommender, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.pth")
    recommender = Recommender.load(tmp_path / "model.pth", device="cpu")
    recommender.prepare()
    refused = recommender.rank_each(
        [Query(1, diversity=0.5, explain=1), Query(k=0), Query(1, candidates=["x"])]
    )
    recommender.score_each([ScoreQuery(1, [1]), ScoreQuery(1, ["x"])])
    recommender.similar_each([SimilarQuery([1]), SimilarQuery(["x"])])
    gone = [weakref.ref(part) for part in (recommender, recommender.net, recommender._rankings.catalogue)]
    gc.disable()
    del recommender
    found = [part() for part in gone]
    gc.enable()
    assert found == [None] * 3
    assert isinstance(refused[1], RequestError)
