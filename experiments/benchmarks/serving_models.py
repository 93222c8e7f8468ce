"""The models that `serving` asks: made once, and kept as bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.benchmarks import made_up
from widedeep import bundle, datasets
from widedeep.closed_form import default
from widedeep.config import Config, DataConfig, TrainConfig
from widedeep.errors import BundleError
from widedeep.factors import FactorSettings
from widedeep.recommender import Recommender
from widedeep.training import Chosen


def bundle_of(shape: tuple[int, int, int], folder: Path) -> Path:
    """The bundle of the trained model of (users, items, interactions) in `folder`, made if it is not there."""
    path = _path("trained", shape, folder)
    if not _is_usable(path):
        trained(*shape).save(path)
    return path


def big_bundle_of(shape: tuple[int, int], folder: Path) -> Path:
    """Likewise of (users, items), with random weights."""
    path = _path("random", shape, folder)
    if not _is_usable(path):
        users, items = shape
        made_up.recommender(items, users).save(path)
    return path


def _path(kind: str, shape: tuple[int, ...], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}-{'-'.join(map(str, shape))}-format-{bundle.VERSION}.pth"


def _is_usable(path: Path) -> bool:
    try:
        bundle.load(path, None)
    except BundleError:
        return False
    return True


def trained(users: int, items: int, interactions: int, seed: int = 0) -> Recommender:
    """Of default widths, all parts of the ranking in it, briefly trained on made-up data.

    seed  of the training; another gives other scores on the same data
    """
    config = Config(
        data=DataConfig(dataset="synthetic", users=users, items=items, interactions=interactions),
        train=TrainConfig(device="cpu", seed=seed),
    )
    settings = replace(default(config.model), factors=FactorSettings(dim=config.model.factor_dim, epochs=4))
    chosen = Chosen(3, 1, 0.5, 0.5, settings)
    data = datasets.load(config.data)
    recommender, _ = Recommender.fit(config, data, data.interactions, chosen=chosen)
    return recommender
