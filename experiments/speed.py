"""A short test of how fast this machine trains and answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from widedeep import Query, Recommender, ScoreQuery
from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.datasets import load
from widedeep.training import Step

SIDE = 2048  # of the multiplied matrices
COPIED = 2**26  # bytes
REPEATS = 5
LIKE_ROWS = 512  # of a step of the like head
ROWS, ITEMS = 10_000, 200  # pairs scored in one call, ITEMS for each user


@dataclass(frozen=True)
class Speed:
    """product in 10^9 floating-point operations a second;  copy in GB a second, read and written;  like_rows and
    ranking_users a second of training;  score in milliseconds for ROWS pairs;  recommend in milliseconds for one
    user of a catalogue of 800 items"""

    device: str
    product: float
    copy: float
    like_rows: float
    ranking_users: float
    score: float
    recommend: float


def measure(device: torch.device) -> Speed:
    """About ten seconds on two cores; medians of REPEATS, the training once."""
    matrix = torch.randn(SIDE, SIDE, device=device)
    block = torch.zeros(COPIED // 4, device=device)
    into = torch.empty_like(block)
    product = median_seconds(lambda: matrix @ matrix, device)
    copy = median_seconds(lambda: into.copy_(block), device)
    recommender, rates = _train(device)
    items = recommender.processor.items.ids_of(np.arange(1, ITEMS + 1))
    users = recommender.processor.users.ids_of(np.arange(1, ROWS // ITEMS + 1))
    pairs = [ScoreQuery(user, items) for user in users]
    score = median_seconds(lambda: recommender.score_batch(pairs), device)
    recommend = median_seconds(lambda: [recommender.rank([Query(user, k=10)]) for user in users], device)
    return Speed(
        device=str(device),
        product=2 * SIDE**3 / product / 1e9,
        copy=2 * COPIED / copy / 1e9,
        like_rows=rates["like"],
        ranking_users=rates["ranking"],
        score=1000 * score,
        recommend=1000 * recommend / len(users),
    )


def _train(device: torch.device) -> tuple[Recommender, dict[str, float]]:
    """Of each head a few epochs of the default model on synthetic data, and how many rows or users a second."""
    config = Config(
        DataConfig(dataset="synthetic"),
        ModelConfig(factor_share=0.0),
        TrainConfig(epochs=2, ranking_epochs=4, batch_size=LIKE_ROWS, device=str(device)),
    )
    data = load(config.data)
    seen: dict[str, list[tuple[float, int]]] = {"like": [], "ranking": []}

    def watch(step: Step) -> None:
        if step.head in seen and not step.metrics:
            seen[step.head].append((time.perf_counter(), step.epoch))

    recommender, _ = Recommender.fit(config, data, data.interactions, progress=watch)
    sizes = {"like": LIKE_ROWS, "ranking": config.train.user_batch_size}
    rates = {}
    for head, moments in seen.items():
        later = [moment for moment, epoch in moments if epoch > 1]  # the first epoch warms up
        rates[head] = sizes[head] * (len(later) - 1) / (later[-1] - later[0])
    return recommender, rates


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of some runs, after one that does not count."""
    taken = []
    for _ in range(REPEATS + 1):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
