"""What trials are compared by: the ranking's quality, and on request the catalogue it covers and what it costs.

All are of the validation part and without chance. The cost is counted and not timed: times of a shared machine
differ by more than two settings do.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.recipe import Prepared
from widedeep.metrics import coverage_at_k
from widedeep.rankings import Targets, rank_users, user_keys
from widedeep.recommender import Recommender

METRICS = {"ndcg": "ndcg_at_10", "coverage": "coverage_at_10", "cost": "serving_cost"}
LABELS = {"ndcg": "NDCG@10", "coverage": "coverage@10", "cost": "million multiply-adds a user"}


def measurer(names: tuple[str, ...], data: Prepared) -> Callable[[Recommender], dict[str, float]]:
    """What of a model that was trained on the train part has to be measured beside what its fit says of it."""

    def measure(recommender: Recommender) -> dict[str, float]:
        found = {}
        if "coverage" in names:
            found[METRICS["coverage"]] = coverage(recommender, data)
        if "cost" in names:
            found[METRICS["cost"]] = serving_cost(recommender)
        return found

    return measure


def coverage(recommender: Recommender, data: Prepared, k: int = 10) -> float:
    """The share of the catalogue that is in the first k of any user of the validation part."""
    processor, rows = recommender.processor, data.split.validation
    keys, _ = user_keys(rows.user_id)
    lists = rank_users(
        recommender,
        Targets.of(processor.encode(rows), keys),
        recommender.histories,
        item_count=processor.item_count,
        warm_count=processor.warm_count,
    )
    return float(coverage_at_k(lists.top, processor.warm_count, k))


def serving_cost(recommender: Recommender) -> float:
    """Million multiply-adds of ranking the whole catalogue for a user with a history of mean length.

    The item side of each part is computed once per model and not counted; parts without a share of the score are
    not computed. Counted from the model's shape: the wide part as if its weights were dense.
    """
    net, histories = recommender.net, recommender.histories
    items, share, factor_share = net.warm_count, float(net.deep_share), float(net.factor_share)
    reading = net.read(histories)
    users = max(1, int((histories.lengths > 0).sum()))
    liked, entries = len(reading.liked.item_index) / users, len(reading.entries.item_index) / users
    cost = 0.0
    if share < 1:
        cost += liked * len(net.wide.items)
    if share * factor_share > 0:
        dim = net.factors.vectors.shape[1]
        cost += (
            liked * dim**2 + dim**3 / 3 + items * dim
        )  # the user's equations, their solution, the products
    if share * (1 - factor_share) > 0:
        hidden, dim = net.config.ranking_hidden, net.config.ranking_dim
        cost += entries * hidden + hidden * dim + items * dim
    return cost / 1e6
