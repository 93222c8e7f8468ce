"""bfloat16 finds the best items, float32 ranks them, so that scores are what they are without it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from widedeep.bags import Settings
from widedeep.catalogue import Catalogue
from widedeep.inputs import Past

FETCHED = 500  # best items by bfloat16 that are ranked, at least
SPARE = 2  # times as many are fetched as a list and what is left out of it take


class Halved:
    """Ranks what is best by item vectors of half the size; the other items not at all."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._vectors = catalogue.vectors.to(torch.bfloat16)

    @torch.inference_mode()
    def scores(self, pasts: Sequence[Past], settings: Settings, count: int) -> Tensor:
        """(pasts, width): as `Catalogue.scores` for the items that are ranked, -inf for the others.

        count  of the best that are wanted, with what is left out of them
        """
        users, wide = self.catalogue.halves(pasts, settings)
        rough = self._product(users)
        if wide is not None:
            self.catalogue.add_wide(rough, *wide)
        rough[:, 0] = -torch.inf
        found = rough.topk(min(max(FETCHED, SPARE * count), rough.shape[1]), dim=1).indices
        scores = torch.full_like(rough, -torch.inf)
        for row, items in enumerate(found):
            scores[row].index_copy_(0, items, users[row] @ self.catalogue.vectors.index_select(1, items))
        if wide is not None:
            self.catalogue.add_wide(scores, *wide)
        return scores

    def _product(self, users: Tensor) -> Tensor:
        """(users, width) float32"""
        halved = users.to(torch.bfloat16)
        if users.device.type == "cuda":
            return torch.mm(halved, self._vectors, out_dtype=torch.float32)
        return (halved @ self._vectors).float()
