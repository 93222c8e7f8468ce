"""How often each id of a data set occurs, and ids ranked by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

HEAD = (0.01, 0.05, 0.2, 0.5)  # shares of the ids, most frequent first, at which a group of them ends
FEWEST = 10  # ids in a group
RANKED = 10  # interactions from which on ids are ranked by them


@dataclass(frozen=True)
class Tally:
    """How often each id occurs.

    ids     (n,) rising; int64, or object array of str
    counts  (n,) int64, above 0
    """

    ids: np.ndarray
    counts: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame({"id": self.ids, "interactions": self.counts})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Tally:
        ids = frame["id"].to_numpy()
        return cls(ids if ids.dtype.kind == "i" else ids.astype(object), frame["interactions"].to_numpy())

    def thresholds(self, ranked: float) -> np.ndarray:
        """(groups - 1,) rising: the fewest interactions of each group of ids but the last, see HEAD.

        A group that would be of fewer than FEWEST ids goes with the next one; ids with fewer than `ranked` interactions
        are not told apart, for their rank is luck.
        """
        falling = np.sort(self.counts)[::-1]
        ends = [0, *(math.ceil(share * len(falling) - 1e-9) for share in HEAD)]
        kept = [0]
        for end in ends[1:]:
            if end - kept[-1] >= FEWEST and len(falling) - end >= FEWEST:
                kept.append(end)
        found = np.unique(falling[np.array(kept[1:], dtype=np.int64) - 1])
        return found[found >= ranked]

    def groups(self, ranked: float = RANKED) -> np.ndarray:
        """(n,) the group of each id, 0 that of the rarest."""
        return np.searchsorted(self.thresholds(ranked), self.counts, side="right")
