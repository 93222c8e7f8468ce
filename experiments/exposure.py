"""Where a model's recommendations go: to what is popular, or to the rest of the catalogue?

Source  Abdollahpouri et al. 2019, arXiv 1907.13286: lists beside what the same users did by themselves
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from widedeep.evaluation import POPULARITY_PARTS, thirds
from widedeep.queries import Query
from widedeep.recommender import Recommender

USERS = 1000  # whose lists are looked at, drawn at random
K = 10


@dataclass(frozen=True)
class Exposure:
    """The lists of some users.

    users      how many
    items      how many of the `catalogue` items stand in a list
    parts      name -> (items in it, share of what these users did, share of the places in their lists); by how many
               interactions the items have: the most popular with a third of all, those with the next third, the rest
    """

    users: int
    items: int
    catalogue: int
    parts: dict[str, tuple[int, float, float]]


def look(model: Recommender, seed: int = 0) -> Exposure:
    """Ask for the first K items of up to USERS users, without what they know."""
    known = model.processor.user_count - 1
    asked = np.sort(np.random.default_rng(seed).choice(known, min(USERS, known), replace=False)) + 1
    lists = model.rank([Query(user_id=model.processor.users.id_of(int(user)), k=K) for user in asked])
    shown = model.processor.items.index_of([item for found in lists for item in found.item_ids])
    histories = model.histories.to("cpu")
    warm = model.processor.warm_count
    part = thirds(torch.bincount(histories.item_index, minlength=warm + 1))
    own = histories.take(torch.from_numpy(asked)).item_index
    places = torch.as_tensor(np.asarray(shown), dtype=torch.int64)

    def shares(items: torch.Tensor) -> list[float]:
        found = torch.bincount(part[items.long()], minlength=len(POPULARITY_PARTS)).double()
        return (found / found.sum().clamp(min=1)).tolist()

    sizes = torch.bincount(part[1 : warm + 1], minlength=len(POPULARITY_PARTS)).tolist()
    rows = zip(POPULARITY_PARTS[:3], sizes, shares(own), shares(places), strict=False)
    return Exposure(
        len(asked), len(torch.unique(places)), warm, {name: (size, did, got) for name, size, did, got in rows}
    )
