"""Wide & Deep recommendations."""

from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.model import WideDeepNet
from widedeep.queries import ColdStart, Query, Ranking, Reason, ScoreQuery, Scores
from widedeep.recommender import Recommender

__all__ = [
    "ColdStart",
    "Config",
    "DataConfig",
    "ModelConfig",
    "Query",
    "Ranking",
    "Reason",
    "Recommender",
    "ScoreQuery",
    "Scores",
    "TrainConfig",
    "WideDeepNet",
]
