"""widedeep: the like head, by the loop that `fit` runs, and by `Recommender.score`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.opponents import child
from experiments.benchmarks.opponents.data import load
from widedeep.checkpoint import Checkpoint
from widedeep.closed_form import default
from widedeep.config import Config, ModelConfig, TrainConfig
from widedeep.features import FeatureProcessor
from widedeep.histories import Histories
from widedeep.like_objective import LikeObjective
from widedeep.model import WideDeepNet
from widedeep.recommender import Recommender
from widedeep.training import Chosen, Step, train_head

CONFIG = Config(
    model=ModelConfig(embedding_dim=child.DIM, hidden=child.HIDDEN, dropout=child.DROPOUT),
    train=TrainConfig(device="cpu"),
)


class Ours:
    """The loop of one epoch, in a thread of its own that waits between the parts of the epoch."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        rows, items, users = load(folder)
        self.processor = FeatureProcessor.fit(rows, items, users, CONFIG.data.like_threshold)
        train = self.processor.encode(rows)
        self.net = WideDeepNet.for_data(CONFIG.model, self.processor, train)
        self.histories = Histories.from_encoded(train, self.processor.user_count)
        device = torch.device("cpu")
        self.objective = LikeObjective(CONFIG, self.net, train, self.histories, None, device)
        self.wanted = self.done = 0
        self.go, self.rest = threading.Semaphore(0), threading.Semaphore(0)
        self.loop = threading.Thread(target=self._train, daemon=True)
        self.rows = len(train)

    def _train(self) -> None:
        self.go.acquire()
        train_head(
            CONFIG, self.net, self.objective, 1, torch.device("cpu"), self._after, Checkpoint(None, False, "")
        )
        self.rest.release()

    def _after(self, step: Step) -> None:
        self.done = step.done
        if not step.metrics and self.wanted <= step.done < step.total:
            self.rest.release()
            self.go.acquire()

    def train(self, start: int, stop: int) -> int:  # noqa: ARG002
        size = self.objective.batches.batch_size
        if not self.loop.is_alive():
            self.loop.start()
        before, self.wanted = self.done, max(1, round(stop / size)) if stop < self.rows else 2**62
        self.go.release()
        self.rest.acquire()
        return min(self.rows, self.done * size) - before * size

    def probabilities(self, rows: child.Rows) -> np.ndarray:
        user, item, features = (
            torch.from_numpy(np.asarray(rows[name]).copy()) for name in ("user", "item", "features")
        )
        return self._head(user, item, features)

    @torch.inference_mode()
    def _head(self, user: torch.Tensor, item: torch.Tensor, features: torch.Tensor) -> np.ndarray:
        found: np.ndarray = self.net.like(user, item, features).sigmoid_().numpy()
        return found

    def inference(self, rows: child.Rows) -> dict[str, Callable[[], object]]:
        self.recommender = self._recommender()
        user, item, features = (torch.from_numpy(rows[name]) for name in ("user", "item", "features"))
        items = self.processor.items.ids_of(np.resize(np.arange(1, self.net.warm_count + 1), len(user)))
        someone = self.processor.users.id_of(int(user[0]))
        return {
            "like head": lambda: self._head(user, item, features),
            "Recommender.score": lambda: self.recommender.score(someone, items),
        }

    def _recommender(self) -> Recommender:
        chosen = Chosen(0, 1, 0.0, 0.0, default(CONFIG.model))
        return Recommender(self.net, self.processor, self.histories, CONFIG, chosen, {"dataset": "synthetic"})

    def save(self, path: Path) -> None:
        """The like head alone, as the opponents save theirs: the rest of a bundle belongs to the ranking."""
        torch.save(self.net.like.state_dict(), path)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    child.serve(Ours(Path(sys.argv[1])), Path(sys.argv[1]))
