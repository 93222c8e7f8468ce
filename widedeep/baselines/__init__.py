"""What a model must beat, in the same run and on the same split: popularity, item-kNN, iALS and EASE.

Each is tuned on the validation part by NDCG@10, then fitted again on all that comes before the test part; the
grids are in the code. A history without anything to go on gets the popular items.
"""

from widedeep.baselines.base import Baseline
from widedeep.baselines.ease import EASE
from widedeep.baselines.ials import IALS
from widedeep.baselines.item_knn import ItemKNN
from widedeep.baselines.popularity import Popularity
from widedeep.baselines.tuning import BASELINES, Tuned, tune_baselines

__all__ = [
    "BASELINES",
    "EASE",
    "IALS",
    "Baseline",
    "ItemKNN",
    "Popularity",
    "Tuned",
    "tune_baselines",
]
