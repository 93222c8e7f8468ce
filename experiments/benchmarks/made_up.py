"""A recommender of any size with random weights: it ranks at the cost of a trained one, and well for nobody."""

from __future__ import annotations

import numpy as np
import torch

from widedeep.closed_form import default
from widedeep.config import Config, ModelConfig
from widedeep.crossed import ITEM_LIMIT
from widedeep.factors import FactorSettings
from widedeep.features import FeatureProcessor, ItemTable
from widedeep.histories import Histories
from widedeep.model import WideDeepNet
from widedeep.recommender import Recommender
from widedeep.training import Chosen
from widedeep.vocabulary import Vocabulary
from widedeep.wide import NEIGHBOURS

USERS = 1000
GENRES = 20
SHORTEST, LONGEST = 60, 140  # entries of a history
SKEW = 3.0  # the place of a drawn item in the order of popularity is uniform ** SKEW of the catalogue
FLATTENING = (
    0.5  # direction j of the item vectors has the scale (1 + j) ** -FLATTENING, as trained ones fall off
)
LIKED = 0.6  # share of the entries
SHARE, FACTOR_SHARE = 0.6, 0.5  # of the ranking score: all three parts count


def recommender(
    items: int, users: int = USERS, config: ModelConfig | None = None, seed: int = 0, device: str = "cpu"
) -> Recommender:
    """With `items` items, all of which have interactions: dense crosses up to ITEM_LIMIT items, sparse ones above."""
    config = config or ModelConfig()
    generator = torch.Generator().manual_seed(seed)
    genres = torch.rand(items + 1, GENRES, generator=generator) < 0.1
    years = torch.randint(1930, 2020, (items + 1,), generator=generator, dtype=torch.int32)
    ids = np.arange(1, items + 1)
    names = [f"genre {number}" for number in range(GENRES)]
    table = ItemTable(["", *map(str, ids.tolist())], names, genres, years)
    nothing = torch.zeros(users + 1, 0)
    processor = FeatureProcessor(
        Vocabulary(np.arange(1, users + 1)), Vocabulary(ids), items, table, nothing, [], 4.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for what is drawn as in training, and not filled below
        net = WideDeepNet(config, table.features(), nothing, genres, items, tells_apart=True)
    _fill(net, config, generator)
    chosen = Chosen(1, 1, SHARE, FACTOR_SHARE, default(config))
    histories = _histories(items, users, generator)
    return Recommender(
        net.to(device), processor, histories, Config(model=config), chosen, {"dataset": "made up"}
    )


@torch.no_grad()
def _fill(net: WideDeepNet, config: ModelConfig, generator: torch.Generator) -> None:
    """Random weights of about the sizes that training gives them."""
    items = net.warm_count
    places = torch.arange(1, items + 1).float()  # by popularity: item 1 is the most frequent
    net.popularity[1:] = (1e6 / places ** (1 - 1 / SKEW)).round()
    net.deep.item_bias[1:] = net.popularity[1:].add(0.5).log()
    net.deep.item_vectors.copy_(_vectors(items, config.ranking_dim, generator))
    net.item_statistics.copy_(torch.rand(net.item_statistics.shape, generator=generator))
    net.deep_share.fill_(SHARE)
    net.factor_share.fill_(FACTOR_SHARE)
    settings = FactorSettings()
    net.factors.vectors = _vectors(items, config.factor_dim, generator) * 0.3
    net.factors.settings = torch.tensor(
        [settings.unobserved_weight, settings.l2, settings.frequency_exponent]
    )
    net.factors.settings = net.factors.settings.double()
    wide = net.wide
    if items <= ITEM_LIMIT:
        wide.items = torch.arange(1, items + 1)
        wide.weights = torch.randn(items, items, generator=generator).mul_(0.01)
        return
    wide.items = torch.arange(1, ITEM_LIMIT + 1)
    wide.offsets = torch.arange(ITEM_LIMIT + 1) * NEIGHBOURS
    crosses = (ITEM_LIMIT, NEIGHBOURS)
    wide.candidates = torch.randint(ITEM_LIMIT, crosses, generator=generator, dtype=torch.int32).flatten()
    wide.weights = torch.rand(crosses, generator=generator).flatten().mul_(0.1)


def _vectors(items: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    """(items + 1, dim), zero for the unknown; turned, so that no direction is a column of its own"""
    scale = (1 + torch.arange(dim)).float() ** -FLATTENING
    turned = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    vectors = torch.zeros(items + 1, dim)
    torch.mm(torch.randn(items, dim, generator=generator) * scale, turned, out=vectors[1:])
    return vectors


def _histories(items: int, users: int, generator: torch.Generator) -> Histories:
    """Of all users by user_index, the unknown's empty."""
    lengths = torch.randint(SHORTEST, LONGEST + 1, (users,), generator=generator)
    rows: list[list[int]] = [[]]
    for length in lengths.tolist():
        drawn = (torch.rand(2 * length, generator=generator) ** SKEW * items).long() + 1
        rows.append(list(dict.fromkeys(drawn.tolist()))[:length])
    liked = [(torch.rand(len(row), generator=generator) < LIKED).tolist() for row in rows]
    return Histories.from_lists(rows, liked, [[4.5 if like else 2.5 for like in likes] for likes in liked])
