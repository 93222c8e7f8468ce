"""Choose each baseline's settings on the validation part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widedeep.baselines.base import Baseline
from widedeep.baselines.ease import EASE
from widedeep.baselines.ials import IALS
from widedeep.baselines.item_knn import ItemKNN
from widedeep.baselines.popularity import Popularity
from widedeep.histories import Encoded, Histories
from widedeep.rankings import Targets, mean_ndcg

TUNING_USERS = 10_000  # validation users that settings are chosen on, at most

Kind = type[Popularity] | type[ItemKNN] | type[IALS] | type[EASE]
BASELINES: tuple[Kind, ...] = (Popularity, ItemKNN, IALS, EASE)


@dataclass(frozen=True)
class Tuned:
    """A baseline at its best.

    tried  every setting of the grid with its validation figure: {"l2": 300.0, …, "ndcg_at_10": 0.1};
           empty where the validation part had nothing to choose by, then the settings are the defaults
    """

    baseline: Baseline
    tried: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return self.baseline.name

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "settings": self.baseline.settings, "tried": self.tried}


def tune_baselines(
    train: Histories,
    validation: Encoded,
    *,
    validation_users: Tensor,
    item_count: int,
    warm_count: int,
    refit_on: Histories | None = None,
    progress: Callable[[str], None] | None = None,
    kinds: Sequence[Kind] = BASELINES,
) -> list[Tuned]:
    """The best of each baseline by NDCG@10 on the validation part.

    train             row u is the history of user_index u
    validation_users  (rows,) int, one key per distinct user of the validation part
    refit_on          train and validation together: the best settings are fitted on it again
    progress          is told one line per baseline
    kinds             those to tune
    """
    validation, validation_users = validation.to("cpu"), validation_users.cpu()
    keep = validation_users % (1 + int(torch.unique(validation_users).numel()) // TUNING_USERS) == 0
    targets = Targets.of(validation.take(keep), validation_users[keep])
    usable = bool((targets.relevant_count > 0).any())
    results = []

    def judge(candidate: Baseline) -> float:
        return mean_ndcg(candidate, targets, train, item_count=item_count, warm_count=warm_count)

    for kind in kinds:
        best: Popularity | ItemKNN | IALS | EASE | None = None
        best_value = -1.0
        tried: list[dict[str, Any]] = []
        for candidate, value in kind.grid(train, item_count, judge) if usable else ():
            tried.append({**candidate.settings, "ndcg_at_10": value})
            if value > best_value:
                best, best_value = candidate, value
        if best is None:
            best = kind().fit(train if refit_on is None else refit_on, item_count)
        elif refit_on is not None:
            best.fit(refit_on, item_count)
        results.append(Tuned(best, tried))
        if progress:
            progress(_chosen(results[-1], best_value))
    return results


def _chosen(tuned: Tuned, value: float) -> str:
    settings = ", ".join(f"{name} {setting}" for name, setting in tuned.baseline.settings.items())
    if not tuned.tried:
        return f"{tuned.name}: {settings} (defaults: the validation part has no likes)"
    return f"{tuned.name}: {settings} (best of {len(tuned.tried)}, validation NDCG@10 {value:.4f})"
