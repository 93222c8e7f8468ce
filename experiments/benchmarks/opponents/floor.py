"""The compute floor of a ranking: the matrix products of one user and the whole catalogue, and nothing else.

    python -m experiments.benchmarks.opponents.floor BUNDLE THREADS

What a version needs once is made beforehand: candidate vectors, the basis of the low-rank part. What is timed for a
user is the sum of the crosses of the liked items, the user's vectors, and their product with all candidates. Left
out: ids, filters, centring, the mixture of the parts, the order.

Reads lines of JSON, {"users": [ids]}, and answers with lines of JSON, {"seconds": [of each]}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmarks.opponents.child import MARK
from widedeep.histories import Histories
from widedeep.recommender import Recommender


class Floor:
    def __init__(self, recommender: Recommender) -> None:
        self.net = recommender.net
        self.recommender = recommender
        net = self.net
        factors = net.factors.vectors
        unobserved, self.l2, self.exponent = net.factors.settings.tolist()
        eigenvalues, basis = torch.linalg.eigh(factors.T.double() @ factors.double())
        self.rotated = factors @ basis.float()
        self.shared = unobserved * eigenvalues.clamp(min=0).float()
        self.unobserved = unobserved * int((factors != 0).any(1).sum())
        candidates = net.deep.candidate_vectors(net.item_features)
        self.items = torch.cat([self.rotated, candidates], 1).contiguous()
        self.place = net.wide.positions()
        self.crosses = net.wide.weights.contiguous()  # a row must lie in one piece to be read at once
        if net.wide.is_product or net.wide.is_sparse:
            raise SystemExit("the floor is that of dense crosses; train with more users than items")

    def products_of(self, user_id: object) -> Callable[[], Tensor]:
        """What is timed, for one user."""
        net = self.net
        index = int(self.recommender.processor.users.index_of([user_id])[0])
        reading = net.read(self.recommender.histories.take(torch.tensor([index])))
        liked, entries = reading.liked, reading.entries
        place, every = self.place[liked.item_index.long()], torch.tensor([0])
        rows, scale = net.deep.rows(entries), reading.entry_weights / reading.entry_weights.norm()
        root = (self.shared + self.l2 * (len(place) + self.unobserved) ** self.exponent).sqrt()
        mixed = torch.empty(2, net.item_count)

        def run() -> Tensor:
            F.embedding_bag(place, self.crosses, every, mode="sum", per_sample_weights=reading.weights)
            hidden = F.embedding_bag(rows, net.deep.read.weight, every, mode="sum", per_sample_weights=scale)
            deep = net.deep.project(hidden.tanh_())
            return torch.mv(self.items, torch.cat([self._solved(liked, root), deep[0]]), out=mixed[0])

        return run

    def _solved(self, liked: Histories, root: Tensor) -> Tensor:
        """(dim,) the user's low-rank vector, in the basis of `rotated`"""
        block = self.rotated[liked.item_index.long()] / root
        fewer = len(block) <= block.shape[1]
        system = block @ block.T if fewer else block.T @ block
        system.diagonal().add_(1)
        side = torch.ones(len(block), 1) if fewer else block.sum(0)[:, None]
        solution = torch.cholesky_solve(side, torch.linalg.cholesky(system))[:, 0]
        return (block.T @ solution if fewer else solution) / root


@torch.inference_mode()
def main(bundle: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    floor = Floor(Recommender.load(bundle, device="cpu"))
    print(MARK + json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        seconds = []
        for user_id in json.loads(line)["users"]:
            run = floor.products_of(user_id)
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        print(MARK + json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
