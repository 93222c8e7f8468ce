"""The usual tutorial's PyTorch: a Dataset that gives single rows, a DataLoader, Adam, loss.item() at every step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from experiments.benchmarks.opponents import child


class Ratings(Dataset[tuple[Tensor, ...]]):
    def __init__(self, rows: child.Rows, start: int, stop: int) -> None:
        self.columns = [
            torch.from_numpy(np.array(rows[name][start:stop]))
            for name in ("user", "item", "features", "liked")
        ]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self.columns)


class WideAndDeep(nn.Module):
    def __init__(self, users: int, items: int, columns: int) -> None:
        super().__init__()
        self.user = nn.Embedding(users, child.DIM)
        self.item = nn.Embedding(items, child.DIM)
        self.wide = nn.Linear(columns, 1)
        layers: list[nn.Module] = []
        width = 2 * child.DIM + columns
        for following in child.HIDDEN:
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(child.DROPOUT)]
            width = following
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, user: Tensor, item: Tensor, features: Tensor) -> Tensor:
        deep = self.deep(torch.cat([self.user(user), self.item(item), features], 1))
        logits: Tensor = (self.wide(features) + deep).squeeze(1)
        return logits


class Seed:
    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.rows = child.read(folder, "train")
        self.model = WideAndDeep(**child.sizes(folder))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=child.RATE)
        self.criterion = nn.BCEWithLogitsLoss()
        self.loss = 0.0

    def train(self, start: int, stop: int) -> int:
        loader = DataLoader(Ratings(self.rows, start, stop), batch_size=child.BATCH, shuffle=True)
        self.model.train()
        for user, item, features, liked in loader:
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(user, item, features), liked)
            loss.backward()
            self.optimizer.step()
            self.loss += loss.item()
        return stop - start

    def probabilities(self, rows: child.Rows) -> np.ndarray:
        self.model.eval()
        user, item, features = (
            torch.from_numpy(np.array(rows[name])) for name in ("user", "item", "features")
        )
        with torch.no_grad():
            found: np.ndarray = self.model(user, item, features).sigmoid().numpy()
        return found

    def inference(self, rows: child.Rows) -> dict[str, Callable[[], object]]:
        return {"no_grad": lambda: self.probabilities(rows)}

    def save(self, path: Path) -> None:
        torch.save(self.model.state_dict(), path)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    child.serve(Seed(Path(sys.argv[1])), Path(sys.argv[1]))
