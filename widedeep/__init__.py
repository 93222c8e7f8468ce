"""Wide & Deep recommendations."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
    from widedeep.model import WideDeepNet
    from widedeep.queries import (
        ColdStart,
        Query,
        Ranking,
        RankingMethod,
        Reason,
        ScoreQuery,
        Scores,
        Similar,
        SimilarQuery,
    )
    from widedeep.recommender import Recommender

__all__ = [
    "ColdStart",
    "Config",
    "DataConfig",
    "ModelConfig",
    "Query",
    "Ranking",
    "RankingMethod",
    "Reason",
    "Recommender",
    "ScoreQuery",
    "Scores",
    "Similar",
    "SimilarQuery",
    "TrainConfig",
    "WideDeepNet",
]

_HOMES = {
    "config": ("Config", "DataConfig", "ModelConfig", "TrainConfig"),
    "model": ("WideDeepNet",),
    "recommender": ("Recommender",),
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: who needs settings and errors alone is spared torch, of 200 MiB and seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "queries")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
