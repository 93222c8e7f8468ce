"""pytorch-widedeep: its Wide, TabMlp and Trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.library import define

from experiments.benchmarks.opponents import child

# torchvision's operators need CUDA's libraries, which a CPU's environment lacks, and importing it needs these declared.
for operator in ("nms", "qnms"):
    define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from pytorch_widedeep import Trainer  # noqa: E402
from pytorch_widedeep.models import TabMlp, Wide, WideDeep  # noqa: E402


class PytorchWideDeep:
    """Its wide part is linear in one-hot columns: users and items here."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.rows, shape = child.read(folder, "train"), child.sizes(folder)
        self.users = shape["users"]
        numbers = [f"f{column}" for column in range(shape["columns"])]
        deep = TabMlp(
            column_idx={name: place for place, name in enumerate(["user", "item", *numbers])},
            cat_embed_input=[("user", shape["users"], child.DIM), ("item", shape["items"], child.DIM)],
            continuous_cols=numbers,
            mlp_hidden_dims=list(child.HIDDEN),
            mlp_dropout=child.DROPOUT,
        )
        self.model = WideDeep(
            wide=Wide(input_dim=shape["users"] + shape["items"], pred_dim=1), deeptabular=deep
        )
        optimizer = torch.optim.Adam(self.model.parameters(), lr=child.RATE)
        self.trainer = Trainer(
            self.model, objective="binary", optimizers=optimizer, verbose=0, device="cpu", num_workers=0
        )

    def inputs(self, rows: child.Rows, part: slice) -> dict[str, np.ndarray]:
        user, item = (np.asarray(rows[name][part], dtype=np.int64) for name in ("user", "item"))
        pair = np.stack([user, item], 1)
        tabular = np.concatenate([pair.astype(np.float32), rows["features"][part]], 1)
        return {"X_wide": pair + np.array([1, 1 + self.users]), "X_tab": tabular}

    def train(self, start: int, stop: int) -> int:
        part = slice(start, stop)
        target = np.asarray(self.rows["liked"][part])
        self.trainer.fit(**self.inputs(self.rows, part), target=target, n_epochs=1, batch_size=child.BATCH)
        return stop - start

    def probabilities(self, rows: child.Rows) -> np.ndarray:
        given = self.inputs(rows, slice(None))
        found: np.ndarray = self.trainer.predict_proba(**given, batch_size=child.INFERENCE_ROWS)[:, 1]
        return found

    def inference(self, rows: child.Rows) -> dict[str, Callable[[], object]]:
        return {"predict_proba": lambda: self.probabilities(rows)}

    def save(self, path: Path) -> None:
        torch.save(self.model.state_dict(), path)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    child.serve(PytorchWideDeep(Path(sys.argv[1])), Path(sys.argv[1]))
