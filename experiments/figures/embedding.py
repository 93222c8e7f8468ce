"""A map of the items: those that the model holds to be alike lie together.

t-SNE (van der Maaten & Hinton 2008) of the vectors whose products are the similarities of `Recommender.similar`.
What is near is alike; how far apart two distant groups lie, and which way is up, says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.figures.style import COLOURS
from widedeep.recommender import Recommender
from widedeep.similar import LOW_RANK_SHARE

MOST_ITEMS = 1000
FEWEST_ITEMS = 10
GENRES = len(COLOURS)
OTHER = "other"
UNKNOWN = "no genres known"


@dataclass(frozen=True)
class ItemMap:
    """The most popular items, the best known first.

    places   (items, 2)
    kinds    (items,) the genre that each is shown as: its least common one, of the most common seven
    genres   (items,) all of them, "A|B"
    count    (items,) interactions that the model was trained on
    """

    places: np.ndarray
    titles: list[str]
    genres: list[str]
    kinds: list[str]
    count: list[int]

    @property
    def shown(self) -> list[str]:
        """The genres, most common first, and what is left."""
        names = sorted({*self.kinds} - {OTHER}, key=lambda name: (-self.kinds.count(name), name))
        return [*names, OTHER] if OTHER in self.kinds else names


def item_map(model: Recommender, items: int = MOST_ITEMS, seed: int = 0) -> ItemMap | None:
    """Of at most so many items, the most popular; None where there are too few for a map."""
    count = torch.bincount(model.histories.item_index, minlength=model.processor.item_count).cpu()
    popular = count.argsort(descending=True, stable=True)[:items]
    popular = popular[count[popular] > 0]
    if len(popular) < FEWEST_ITEMS:
        return None
    from sklearn.manifold import TSNE  # not before: it takes a second that every other command would pay, too

    tsne = TSNE(
        metric="euclidean",
        init="pca",
        random_state=seed,
        perplexity=min(30, (len(popular) - 1) / 3),
        max_iter=500,
    )
    places = tsne.fit_transform(vectors(model, popular).numpy())
    table = model.processor.item_table
    return ItemMap(
        places=places,
        titles=[table.titles[index] for index in popular.tolist()],
        genres=[table.genre_texts[index] for index in popular.tolist()],
        kinds=_kinds(table.genres[popular], table.genre_names),
        count=count[popular].tolist(),
    )


@torch.inference_mode()
def vectors(model: Recommender, items: Tensor) -> Tensor:
    """(items, any) float32 of unit length on the CPU, whose products are the model's similarities.

    items  (items,) int64 item_index, of items with interactions
    """
    net, where = model.net, items.to(model.net.device)
    low_rank = F.normalize(net.factors.vectors[where])
    deep = F.normalize(net.deep.candidate_vectors(net.item_features)[where])
    share = LOW_RANK_SHARE if bool((net.factors.vectors != 0).any()) else 0.0
    return torch.cat([low_rank * share**0.5, deep * (1 - share) ** 0.5], 1).float().cpu()


def _kinds(genres: Tensor, names: list[str]) -> list[str]:
    """genres  (items, genres) bool"""
    if not bool(genres.any()):
        return [UNKNOWN] * len(genres)
    common = genres.sum(0).argsort(descending=True, stable=True)[:GENRES]
    rarest_first = common.flip(0)
    found = genres[:, rarest_first]
    return [names[int(rarest_first[int(row.int().argmax())])] if bool(row.any()) else OTHER for row in found]
