"""What TensorBoard shows of a run: the scalars that MLflow has, the trials' settings, and the items' vectors.

python -m experiments main --tensorboard DIR
tensorboard --logdir DIR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.progress import Console
from experiments.writes import Point
from widedeep.recommender import Recommender

SHOWN_ITEMS = 10_000  # in the projector, whose t-SNE and UMAP take no more
FLUSH_SECONDS = 10
COLUMNS = ["title", "genres", "year", "likes", "item_id"]


class Board:
    """One run's folder of event files. TensorBoard is imported when there is one."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self._writer = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)

    def scalars(self, points: Sequence[Point]) -> None:
        """Under the names and steps that they have in MLflow, in single precision."""
        for name, value, milliseconds, step in points:
            self._writer.add_scalar(name, value, step, milliseconds / 1000)

    def trial(self, name: str, settings: Mapping[str, Any], points: Sequence[Point]) -> None:
        """A run below this one, with its settings for the page of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        board = Board(self.folder / name)
        plain = {
            key: value if isinstance(value, int | float) else str(value) for key, value in settings.items()
        }
        # What `hparams` gives first would fix the columns of all runs to those of this one.
        _, start, end = hparams(plain, {})  # type: ignore[no-untyped-call]
        for summary in (start, end):
            board._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        board.scalars(points)
        board.close()

    def items(self, model: Recommender, console: Console) -> None:
        """The items' vectors in the ranking, for the projector, with what they are.

        Those with most likes, if there are too many. By cosine: that is how much alike two of them rank.
        """
        likes = model.net.popularity.cpu()[1 : model.processor.warm_count + 1]
        shown = likes.argsort(descending=True, stable=True)[:SHOWN_ITEMS] + 1
        table = model.processor.item_table
        metadata = [
            [
                _cell(table.titles[index]),
                table.genre_texts[index] or "none",
                int(table.years[index]),
                f"{float(model.net.popularity[index]):g}",
                _cell(model.processor.items.id_of(index)),
            ]
            for index in shown.tolist()
        ]
        for name, vectors in _vectors(model).items():
            self._writer.add_embedding(vectors[shown], metadata, metadata_header=COLUMNS, tag=name)
        of = f"the {len(shown):,} of {len(likes):,} items with most likes"
        if len(shown) == len(likes):
            of = f"all {len(likes):,} items"
        console.say(f"tensorboard: vectors of {of}; see it with: tensorboard --logdir {self.folder.parent}")

    def close(self) -> None:
        self._writer.close()


@torch.inference_mode()
def _vectors(model: Recommender) -> dict[str, Tensor]:
    """(item_count, any) by name, of the parts that the ranking listens to, or of the deep one."""
    net = model.net
    share = float(net.factor_share)
    found = (
        {"items_deep": F.normalize(net.deep.candidate_vectors(net.item_features)).cpu()} if share < 1 else {}
    )
    if share > 0:
        found["items_low_rank"] = F.normalize(net.factors.vectors).cpu()
    return found


def _cell(text: object) -> str:
    """In a file whose columns tabs part, and whose rows lines."""
    return " ".join(str(text).split())
