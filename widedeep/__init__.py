"""Wide & Deep recommendations."""

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
