"""Metrics on tensors, each with its definition.

Ranking metrics take `hits`, whether the item at each place of a user's list is relevant, and
`relevant_count`, how many items are relevant to the user, those that cannot be recommended included. So no
(users, items) matrix of relevance is needed. They give one value per user; the mean is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CALIBRATION_BINS = 15  # as in Guo et al. 2017
BLOCK_USERS = 8192  # lists whose items are compared at once


def ndcg_at_k(hits: Tensor, relevant_count: Tensor, k: int) -> Tensor:
    """Normalised discounted cumulative gain.

    hits            (users, >= k) bool, best first; shorter lists count as filled up with misses
    relevant_count  (users,) int: the ideal list begins with min(k, relevant_count) of them
    Returns         (users,) float64 in [0, 1]; NaN where a user has no relevant item
    Raises          ValueError: k < 1
    Source          Järvelin & Kekäläinen 2002, eq. 2 and 6, binary gain, discount 1 / log2(rank + 1)
    """
    gain = _first(hits, k).double() @ _discounts(min(k, hits.shape[1]), hits.device)
    ideal = torch.cat([hits.new_zeros(1, dtype=torch.float64), _discounts(k, hits.device).cumsum(0)])
    return gain / _or_nan(ideal[relevant_count.long().clamp(max=k)], relevant_count)


def recall_at_k(hits: Tensor, relevant_count: Tensor, k: int) -> Tensor:
    """Share of the user's relevant items that are among the first k: hits / relevant.

    Below 1 even for a perfect list where more than k items are relevant; `recall_at_k_capped` mends that.
    hits            (users, >= k) bool, best first
    relevant_count  (users,) int
    Returns         (users,) float64 in [0, 1]; NaN where a user has no relevant item
    Raises          ValueError: k < 1
    Source          Manning, Raghavan & Schütze 2008, Introduction to Information Retrieval, section 8.3
    """
    return _first(hits, k).double().sum(1) / _or_nan(relevant_count.double(), relevant_count)


def recall_at_k_capped(hits: Tensor, relevant_count: Tensor, k: int) -> Tensor:
    """Recall over what a list of k could hold: hits / min(k, relevant).

    hits            (users, >= k) bool, best first
    relevant_count  (users,) int
    Returns         (users,) float64 in [0, 1]; NaN where a user has no relevant item
    Raises          ValueError: k < 1
    Source          Liang et al. 2018, arXiv 1802.05814, section 4.2
    """
    return _first(hits, k).double().sum(1) / _or_nan(relevant_count.clamp(max=k).double(), relevant_count)


def hit_rate_at_k(hits: Tensor, relevant_count: Tensor, k: int) -> Tensor:
    """1 where any of the first k is relevant, else 0.

    hits            (users, >= k) bool, best first
    relevant_count  (users,) int
    Returns         (users,) float64, 0 or 1; NaN where a user has no relevant item
    Raises          ValueError: k < 1
    Source          Deshpande & Karypis 2004, section 6.1.3, with any number of relevant items
    """
    return _or_nan(_first(hits, k).any(1).double(), relevant_count)


def mrr(first_rank: Tensor, relevant_count: Tensor) -> Tensor:
    """Reciprocal rank of the first relevant item, over the whole ranking and not its first k.

    first_rank      (users,) int, from 1; 0 where no relevant item can be recommended, which counts as 0
    relevant_count  (users,) int
    Returns         (users,) float64 in [0, 1]; NaN where a user has no relevant item
    Source          Voorhees 1999, TREC-8 question answering track
    """
    rank = first_rank.double()
    return _or_nan(torch.where(rank > 0, 1 / rank.clamp(min=1), 0.0), relevant_count)


def coverage_at_k(ranked: Tensor, candidates: int, k: int) -> Tensor:
    """Share of the catalogue that is in anyone's first k.

    ranked      (users, >= k) int item indices, best first, 0 for an empty place
    candidates  items that could be recommended
    Returns     () float64 in [0, 1]
    Raises      ValueError: k < 1 or candidates < 1
    Source      Ge, Delgado-Battenfeld & Jannach 2010, catalogue coverage, eq. 2
    """
    if candidates < 1:
        raise ValueError(f"candidates must be 1 or more, got {candidates}")
    items = torch.unique(_first(ranked, k))
    covered: Tensor = (items > 0).sum().double()
    return covered / candidates


def novelty_at_k(ranked: Tensor, information: Tensor, k: int) -> Tensor:
    """Mean self-information of the first k: how much less known they are than what everyone has.

    ranked       (users, >= k) int item indices, best first, 0 for an empty place
    information  (items,) float, in bits, see `self_information`
    Returns      (users,) float64, in bits; NaN for an empty list
    Raises       ValueError: k < 1
    Source       Zhou et al. 2010, Solving the apparent diversity-accuracy dilemma of recommender systems,
                 PNAS 107, the surprisal
    """
    listed = _first(ranked, k) > 0
    total = (information.double()[_first(ranked, k)] * listed).sum(1)
    return total / _or_nan(listed.sum(1).double(), listed.sum(1))


def self_information(users_of_item: Tensor, users: int) -> Tensor:
    """(items,) float64 bits: -log2 of the share of the users who have each item.

    An item that nobody has counts as one that one user has.
    users_of_item  (items,) number of users who have it
    users          users there are, 1 or more
    """
    return -(users_of_item.double().clamp(min=1) / users).log2()


def diversity_at_k(ranked: Tensor, genres: Tensor, k: int) -> Tensor:
    """Mean Jaccard distance between the genres of two items of the first k: 0 all alike, 1 nothing shared.

    Items without genres are left out: what they share is not known.
    ranked   (users, >= k) int item indices, best first, 0 for an empty place
    genres   (items, genres) bool; row 0, the empty place, all False
    Returns  (users,) float64 in [0, 1]; NaN where fewer than two items of the list have genres
    Raises   ValueError: k < 1
    Source   Ziegler et al. 2005, Improving recommendation lists through topic diversification, eq. 1, as a
             mean of distances (Smyth & McClave 2001) with that of Jaccard
    """
    lists = _first(ranked, k)
    starts = range(0, len(lists), BLOCK_USERS)
    found = [_mean_distance(genres[lists[start : start + BLOCK_USERS]]) for start in starts]
    return torch.cat([genres.new_zeros(0, dtype=torch.float64), *found])


def _mean_distance(genres: Tensor) -> Tensor:
    """(users,) from (users, places, genres) bool"""
    vectors = genres.float()
    size = vectors.sum(2)
    shared = vectors @ vectors.mT
    union = size[:, :, None] + size[:, None] - shared
    known = (size > 0)[:, :, None] & (size > 0)[:, None]
    known.diagonal(dim1=1, dim2=2).zero_()
    distance = (1 - shared.double() / union.clamp(min=1)) * known
    pairs = known.sum((1, 2))
    return distance.sum((1, 2)) / _or_nan(pairs.double(), pairs)


def auc(score: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting one half.

    score     (rows,) float without NaN
    positive  (rows,) bool
    Returns   () float64 in [0, 1]; NaN where all rows are of one kind
    Source    Hanley & McNeil 1982, the Mann-Whitney form, from ranks: O(rows log rows)
    """
    ordered, inverse = torch.unique(score, return_inverse=True)
    positives = torch.bincount(inverse[positive], minlength=len(ordered)).double()
    negatives = torch.bincount(inverse[~positive], minlength=len(ordered)).double()
    below = negatives.cumsum(0) - negatives / 2
    area: Tensor = (positives @ below) / (positives.sum() * negatives.sum())
    return area


def row_log_loss(probability: Tensor, positive: Tensor) -> Tensor:
    """(rows,) float64: -log of the probability that was given to what happened, see `log_loss`."""
    limit = torch.finfo(probability.dtype).eps
    probability = probability.double().clamp(limit, 1 - limit)
    return -torch.where(positive, probability, 1 - probability).log()


def log_loss(probability: Tensor, positive: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats.

    Probabilities are kept one machine epsilon of their type away from 0 and 1, as scikit-learn does.
    probability  (rows,) float in [0, 1]
    positive     (rows,) bool
    Returns      () float64; NaN without rows
    Source       Good 1952, Rational Decisions, the logarithmic score
    """
    return row_log_loss(probability, positive).mean()


@dataclass(frozen=True)
class ReliabilityBins:
    """What was promised and what came, by bins of the promise.

    low, high         (bins,) float64: a bin is low <= probability < high, the last one takes 1 as well
    count             (bins,) float64 rows
    mean_probability  (bins,) float64; NaN in an empty bin
    positive_rate     (bins,) float64; NaN in an empty bin
    """

    low: Tensor
    high: Tensor
    count: Tensor
    mean_probability: Tensor
    positive_rate: Tensor


def calibration_bin(probability: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """(rows,) int64: the equal-width bin that each probability falls in."""
    return (probability.double() * bins).long().clamp(0, bins - 1)


def reliability_bins(probability: Tensor, positive: Tensor, bins: int = CALIBRATION_BINS) -> ReliabilityBins:
    """The points of a reliability curve, over bins of equal width.

    probability  (rows,) float in [0, 1]
    positive     (rows,) bool
    Raises       ValueError: bins < 1
    Source       Guo et al. 2017, arXiv 1706.04599, section 2
    """
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    bin_of_row = calibration_bin(probability, bins)
    count = torch.bincount(bin_of_row, minlength=bins).double()
    edges = torch.arange(bins + 1, dtype=torch.float64, device=probability.device) / bins
    return ReliabilityBins(
        low=edges[:-1],
        high=edges[1:],
        count=count,
        mean_probability=torch.bincount(bin_of_row, probability.double(), minlength=bins) / count,
        positive_rate=torch.bincount(bin_of_row, positive.double(), minlength=bins) / count,
    )


def calibration_error(probability: Tensor, positive: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error: |promised - happened| averaged over the rows, by bins of equal width.

    Chance differences within the bins count as error too, so it is above 0 for a perfect model as well,
    the more so the fewer rows there are.
    probability  (rows,) float in [0, 1]
    positive     (rows,) bool
    Returns      () float64 in [0, 1]; NaN without rows
    Raises       ValueError: bins < 1
    Source       Guo et al. 2017, arXiv 1706.04599, eq. 3, with 15 bins as there
    """
    curve = reliability_bins(probability, positive, bins)
    gap = (curve.mean_probability - curve.positive_rate).abs() * curve.count
    return gap.nansum() / curve.count.sum()


def _first(values: Tensor, k: int) -> Tensor:
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    return values[:, :k]


def _discounts(k: int, device: torch.device) -> Tensor:
    """(k,) 1 / log2(rank + 1) for the ranks from 1."""
    return 1 / torch.arange(2, k + 2, dtype=torch.float64, device=device).log2()


def _or_nan(values: Tensor, relevant_count: Tensor) -> Tensor:
    return values.masked_fill(relevant_count == 0, torch.nan)
