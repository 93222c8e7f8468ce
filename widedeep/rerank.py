"""Diversity: maximal marginal relevance (Carbonell & Goldstein 1998) over the best of a ranking."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from widedeep.queries import Query

POOL_LEAST, POOL_FACTOR = 100, 5  # the best max(100, 5 k) items may come into a list of k
BLOCK_VALUES = 2**24  # numbers in the vectors of the rows that are re-ranked at once: 64 MB of float32
UNLISTED = -1e9  # below every value that an item of the pool can have


def pool_size(query: Query) -> int:
    """How many of the best items the query's list is chosen from."""
    return max(POOL_LEAST, POOL_FACTOR * query.k) if query.diversity > 0 else query.k


def rerank(
    queries: Sequence[Query], scores: Tensor, columns: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Change the order of those rows whose query asks for diversity.

    scores, columns  (queries, places) best first, of at least the largest `pool_size`
    vectors          (item_count, any) of unit length, by column
    Returns          scores, columns (queries, places), right in the first k places of each query
    """
    asked = [row for row, query in enumerate(queries) if query.diversity > 0]
    if not asked:
        return scores, columns
    scores, columns = scores.clone(), columns.clone()
    block = max(1, BLOCK_VALUES // (scores.shape[1] * vectors.shape[1]))
    for start in range(0, len(asked), block):
        part = [queries[row] for row in asked[start : start + block]]
        rows = torch.tensor(asked[start : start + block], device=scores.device)
        pool = torch.tensor([pool_size(query) for query in part], device=scores.device)
        diversity = torch.tensor([float(query.diversity) for query in part], device=scores.device)
        order = diversify(
            scores[rows], vectors[columns[rows]], pool, diversity, max(query.k for query in part)
        )
        width = order.shape[1]
        scores[rows, :width], columns[rows, :width] = (
            scores[rows].gather(1, order),
            columns[rows].gather(1, order),
        )
    return scores, columns


def genre_vectors(genres: Tensor) -> Tensor:
    """(items, genres + 1) unit vectors whose product is the genres' cosine; no genre is a genre of its own.

    genres  (items, genres) bool
    """
    return F.normalize(torch.cat([genres, ~genres.any(1, keepdim=True)], 1).float())


def diversify(scores: Tensor, vectors: Tensor, pool: Tensor, diversity: Tensor, k: int) -> Tensor:
    """Choose k places one by one: each the best by (1 - diversity) * relevance - diversity * likeness.

    Relevance is the score, scaled to 0 to 1 over the pool; likeness is the mean cosine with what was chosen, which
    cost less NDCG at the same variety than the highest cosine of the paper. So 0 gives the ranking itself and 1
    looks at nothing but the vectors; the first place always keeps its item.

    scores     (rows, places) best first, -inf where there is none
    vectors    (rows, places, any) of unit length
    pool       (rows,) int: the places that may be chosen
    diversity  (rows,) in [0, 1]
    Returns    (rows, min(k, places)) int64; places without an item come last
    """
    rows = torch.arange(len(scores), device=scores.device)
    places = torch.arange(scores.shape[1], device=scores.device)
    listed = (scores > -torch.inf) & (places < pool[:, None])
    low = scores.masked_fill(~listed, torch.inf).amin(1, keepdim=True)
    relevance = (scores - low) / (scores[:, :1] - low).clamp(min=1e-12)
    share = diversity[:, None]
    value = ((1 - share) * relevance).masked_fill(~listed, UNLISTED)
    likeness = torch.zeros_like(value)  # summed over what was chosen
    chosen: list[Tensor] = []
    for _ in range(min(k, scores.shape[1])):
        each = share / max(1, len(chosen))
        place = (value - each * likeness).argmax(1)  # of equal ones the first, so the better by score
        chosen.append(place)
        value[rows, place] = -torch.inf
        likeness += torch.bmm(vectors, vectors[rows, place][:, :, None]).squeeze(2)
    return torch.stack(chosen, 1)
