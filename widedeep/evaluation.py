"""How good is a model on the test part? Over the full catalogue, never against a sample of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from widedeep import bootstrap as resampling
from widedeep import metrics
from widedeep.bootstrap import NOT_APPLICABLE, Interval
from widedeep.errors import EmptyDataError, WideDeepError
from widedeep.histories import Encoded, Histories
from widedeep.rankings import Progress, Ranker, Rankings, Targets, mean_ndcg, rank_users, user_keys
from widedeep.report import METRICS, RANKING_METRICS, Report, Slice
from widedeep.thresholds import Thresholds

__all__ = ["LikeModel", "Progress", "Ranker", "Report", "evaluate", "mean_ndcg", "user_keys"]

BLOCK_ROWS = 2**17  # rows whose like-probability is asked for at once
AUC_ENTRIES = 10**8  # resamples x rows: above it AUC gets fewer resamples, though never below MIN_SAMPLES
MIN_SAMPLES = 100
HISTORY_PARTS = (("none (0)", 0), ("short (1-19)", 1), ("medium (20-99)", 20), ("long (100+)", 100))
POPULARITY_PARTS = ("head (first third)", "middle (second third)", "tail (last third)", "not in train")


class LikeModel(Protocol):
    """Anything that says how probable it is that a user likes an item."""

    def probability(self, user_index: Tensor, item_index: Tensor, histories: Histories) -> Tensor:
        """(rows,) in [0, 1].

        user_index, item_index  (rows,) int, 0 = unknown
        histories               of all users: row u is the history of user_index u
        """
        ...


def evaluate(
    ranker: Ranker,
    *,
    train: Histories,
    test: Encoded,
    test_users: Tensor,
    item_count: int,
    warm_count: int,
    user_ids: Sequence[Any] | np.ndarray | None = None,
    genres: Tensor | None = None,
    like_model: LikeModel | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Measure a model on the test part.

    Relevant is what was liked. A relevant item that cannot be recommended, because the training part does not
    have it, counts against every ranker alike. Ranking metrics average over the users with a relevant item,
    coverage is over the lists of all test users, like metrics are over all test rows. Novelty is in bits, by
    how many users have an item in `train`. Intervals: 95%, by bootstrap over users.

    train       row u is what user_index u did: given to the model, and left out of its lists
    test        the test part
    test_users  (rows,) int, one key per distinct user, known or not; `user_keys` makes them
    warm_count  the catalogue is the items 1 to warm_count
    user_ids    the ids by key, to index `per_user` with; without them it is indexed by key
    genres      (item_count, any) bool, which tell how diverse a list is; without them that is not measured
    bootstrap   resamples; 0 for none, then the intervals are NaN
    Raises      EmptyDataError: no liked row in the test part; WideDeepError: NaN scores or probabilities
    """
    if not bool(test.liked.any()):
        raise EmptyDataError(
            f"The test part has {len(test)} interactions, none of them liked, so there is nothing to rank. "
            "Lower like_threshold or enlarge test_fraction."
        )
    test, test_users = test.to("cpu"), test_users.cpu()
    targets = Targets.of(test, test_users)
    found = rank_users(
        ranker, targets, train, item_count=item_count, warm_count=warm_count, progress=progress
    )
    per_user = _per_user(targets, found, train, genres, user_ids)
    figures, slices = _ranking_figures(targets, found, train, per_user, warm_count, bootstrap, seed)
    curves: dict[str, dict[str, list[float | None]]] = {}
    if like_model is not None and not bool(test.liked.all()):
        like_figures, curves = _like_figures(like_model, train, test, test_users, bootstrap, seed)
        figures |= like_figures
    return Report(
        model=ranker.name,
        metrics={name: figures.get(name, NOT_APPLICABLE) for name in METRICS},
        users=len(per_user),
        rows=len(test),
        slices=slices,
        curves=curves,
        per_user=per_user,
    )


def _per_user(
    targets: Targets,
    found: Rankings,
    train: Histories,
    genres: Tensor | None,
    user_ids: Sequence[Any] | np.ndarray | None,
) -> pd.DataFrame:
    count = targets.relevant_count
    key = targets.key.numpy()
    users_of_item = torch.bincount(train.item_index.cpu(), minlength=int(found.top.max()) + 1)
    information = metrics.self_information(users_of_item, max(1, int((train.lengths > 0).sum())))
    none = torch.zeros(len(users_of_item), 0, dtype=torch.bool)
    frame = pd.DataFrame(
        {
            "ndcg_at_10": metrics.ndcg_at_k(found.hits, count, 10),
            "recall_at_10": metrics.recall_at_k(found.hits, count, 10),
            "recall_at_20": metrics.recall_at_k(found.hits, count, 20),
            "hit_rate_at_10": metrics.hit_rate_at_k(found.hits, count, 10),
            "mrr": metrics.mrr(found.first_rank, count),
            "novelty_at_10": metrics.novelty_at_k(found.top, information, 10),
            "diversity_at_10": metrics.diversity_at_k(
                found.top, none if genres is None else genres.cpu(), 10
            ),
            "relevant": count,
            "history": train.lengths.cpu()[targets.user_index],
        },
        index=pd.Index(key if user_ids is None else np.asarray(user_ids)[key], name="user"),
    )
    return frame[frame["relevant"] > 0]


def _ranking_figures(
    targets: Targets,
    found: Rankings,
    train: Histories,
    per_user: pd.DataFrame,
    warm_count: int,
    samples: int,
    seed: int,
) -> tuple[dict[str, Interval], list[Slice]]:
    names = [name for name in RANKING_METRICS if name in per_user and per_user[name].notna().any()]
    values = per_user[names].to_numpy(float)
    starts = np.array([start for _, start in HISTORY_PARTS])
    part = np.searchsorted(starts, per_user["history"], side="right") - 1
    member = (part[:, None] == np.arange(len(starts))).astype(float)  # (users, parts)
    sliced = ["ndcg_at_10", "recall_at_20"]
    by_history = [per_user[name].to_numpy(float)[:, None] * member for name in sliced]
    hits, relevant = _by_popularity(targets, found, train, warm_count)
    keep = (targets.relevant_count > 0).numpy()
    intervals = iter(
        resampling.ratio_intervals(
            np.concatenate([np.nan_to_num(values), *by_history, hits[keep]], axis=1),
            np.concatenate([~np.isnan(values), *([member] * len(sliced)), relevant[keep]], axis=1),
            samples=samples,
            seed=seed,
        )
    )
    figures = {name: next(intervals) for name in names}
    users = member.sum(0).astype(int).tolist()
    slices = [
        Slice("history", name, size, metric, next(intervals))
        for metric in sliced
        for (name, _), size in zip(HISTORY_PARTS, users, strict=True)
    ]
    slices += [
        Slice("popularity", name, size, "recall_at_20", next(intervals))
        for name, size in zip(POPULARITY_PARTS, relevant.sum(0).astype(int).tolist(), strict=True)
    ]
    lists = found.top[:, :10].numpy()
    figures["coverage_at_10"] = resampling.coverage_interval(lists, warm_count, samples=samples, seed=seed)
    return figures, [part for part in slices if part.size]


def _by_popularity(
    targets: Targets, found: Rankings, train: Histories, warm_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hits in the first 20 and relevant items, each (users, parts), by the popularity of the items."""
    part = thirds(torch.bincount(train.item_index, minlength=warm_count + 1).cpu())
    users, parts = len(targets.key), len(POPULARITY_PARTS)
    relevant = torch.bincount(targets.row * parts + _part_of(targets.item, part), minlength=users * parts)
    relevant = relevant.reshape(users, parts)
    relevant[:, 3] += targets.relevant_count - relevant.sum(1)  # those without an index
    user, place = found.hits.nonzero(as_tuple=True)
    hits = torch.bincount(
        user * parts + _part_of(found.top[user, place], part), minlength=users * parts
    ).reshape(users, parts)
    return hits.double().numpy(), relevant.double().numpy()


def thirds(count: Tensor) -> Tensor:
    """(items,) int64, which of POPULARITY_PARTS each item is in.  count: (items,) training interactions

    The most popular items that make up a third of all interactions are the head, the next third the middle, the
    rest the tail.
    """
    order = count.argsort(descending=True, stable=True)
    before = count[order].cumsum(0) - count[order]
    part = torch.empty_like(count)
    part[order] = (3 * before // count.sum().clamp(min=1)).clamp(max=2)
    part[count == 0] = 3
    return part


def _part_of(item: Tensor, part: Tensor) -> Tensor:
    return part[item.clamp(max=len(part) - 1)].where(item < len(part), len(POPULARITY_PARTS) - 1)


def _like_figures(
    model: LikeModel, train: Histories, test: Encoded, test_users: Tensor, samples: int, seed: int
) -> tuple[dict[str, Interval], dict[str, dict[str, list[float | None]]]]:
    probability = _probabilities(model, train, test)
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise WideDeepError(
            f"{int(outside.sum())} of {len(probability)} like-probabilities are not within 0 and 1; the first is "
            f"{float(probability[outside][0])}. With NaN, training diverged: lower the learning rate."
        )
    liked = test.liked
    unit = torch.unique(test_users, return_inverse=True)[1]
    users = int(unit.max()) + 1
    rows = torch.bincount(unit, minlength=users).double().numpy()
    loss = torch.bincount(unit, metrics.row_log_loss(probability, liked), minlength=users).numpy()
    bins = metrics.CALIBRATION_BINS
    gaps = torch.bincount(
        unit * bins + metrics.calibration_bin(probability),
        probability.double() - liked.double(),
        minlength=users * bins,
    ).reshape(users, bins)
    auc_samples = min(samples, max(MIN_SAMPLES, AUC_ENTRIES // len(test)))
    figures = {
        "auc": resampling.auc_interval(
            probability.numpy(),
            liked.numpy(),
            unit.numpy(),
            float(metrics.auc(probability, liked)),
            samples=auc_samples,
            seed=seed,
        ),
        "log_loss": resampling.ratio_intervals(loss[:, None], rows[:, None], samples=samples, seed=seed)[0],
        "calibration_error": resampling.calibration_interval(
            gaps.numpy(),
            rows,
            float(metrics.calibration_error(probability, liked)),
            samples=samples,
            seed=seed,
        ),
    }
    curve = metrics.reliability_bins(probability, liked)
    columns = {
        name: [None if value != value else value for value in getattr(curve, name).tolist()]
        for name in ("low", "high", "count", "mean_probability", "positive_rate")
    }
    return figures, {"reliability": columns, "thresholds": Thresholds.of(probability, liked).to_curve()}


def _probabilities(model: LikeModel, train: Histories, test: Encoded) -> Tensor:
    """(rows,) float32 on the CPU; asked for user by user, so that a history is read for one or two blocks of rows"""
    device = train.offsets.device
    order = test.user_index.argsort(stable=True)
    test = test.take(order)
    parts = []
    for start in range(0, len(test), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        users, items = test.user_index[block].to(device), test.item_index[block].to(device)
        with torch.no_grad():
            parts.append(model.probability(users, items, train).float().cpu())
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, order, found)
