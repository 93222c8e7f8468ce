"""What `serving` measures: `Score` by many at once, `ScoreStream` on one stream, `Recommend` one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.benchmarks import form, serving_load, serving_targets
from experiments.benchmarks.opponents.process import OpponentFailed, Process
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.serving_load import Load
from experiments.benchmarks.serving_targets import SERVICE
from server.pb import recommender_pb2 as pb
from widedeep.recommender import Recommender

ITEMS, CONCURRENCY, K = 64, 64, 10
ROUNDS = form.REPEATS + 1
MILLISECONDS = 1e3

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is asked in one turn."""

    seconds: float  # of load on one server
    messages: int  # on one stream, at most
    rankings: int  # in one round
    big_rankings: int  # likewise, of the big catalogue


@dataclass(frozen=True)
class Question:
    """A user, some items, and the probabilities that the bundle gives them, asked without a server."""

    user: str
    items: list[str]
    probabilities: np.ndarray


def questions(bundle: Path, count: int) -> list[Question]:
    """Of users drawn at random, who have done something."""
    recommender, rng = Recommender.load(bundle, device="cpu"), np.random.default_rng(0)
    processor = recommender.processor
    users = rng.choice(np.flatnonzero(recommender.histories.only_liked().lengths.numpy()), count)
    found = []
    for user in processor.users.ids_of(users):
        items = processor.items.ids_of(rng.choice(processor.warm_count, ITEMS, replace=False) + 1)
        found.append(Question(str(user), [str(item) for item in items], recommender.score(user, items)))
    return found


def check(target: Target, question: Question) -> None:
    """Wait for the first answer; it must be the bundle's, unless the model is removed.

    Raises  OpponentFailed
    """
    body = target.score(question.user, question.items)
    target.await_answer(lambda: serving_load.ask(target, body))
    answer = serving_load.ask(target, body)
    if target.name != "empty" and not serving_load.holds(target, answer, question.probabilities):
        raise OpponentFailed(f"{target.name}: its probabilities are not the model's own")


def scores(
    targets: dict[str, Target], asked: Sequence[Question], size: Size, folder: Path, tell: Tell
) -> dict[str, list[Load]]:
    """Loads by server, a round each, the first left out.  Raises  OpponentFailed"""
    bodies = {
        name: [target.score(question.user, question.items) for question in asked[:ROUNDS]]
        for name, target in targets.items()
    }
    found: dict[str, list[Load]] = {name: [] for name in targets}
    counts = dict.fromkeys(targets, CONCURRENCY)
    for round_, name in _turns(list(targets)):
        load = serving_load.unary(targets[name], bodies[name][round_], counts[name], CONCURRENCY, folder)
        tell(f"Score, round {round_}: {name}, {load.cpu_microseconds:,.0f} CPU us, {load.rate:,.0f} a second")
        if round_:
            found[name].append(load)
        counts[name] = max(CONCURRENCY, int(load.rate * size.seconds))
    return found


def streams(
    targets: Sequence[Target], asked: Sequence[Question], size: Size, folder: Path, tell: Tell
) -> dict[str, list[Load]]:
    """Likewise; other users and items in every message.  Raises  OpponentFailed"""
    messages = [
        pb.ScoreStreamRequest(request=pb.ScoreRequest(user_id=question.user, item_ids=question.items))
        for question in asked
    ]
    packed = [message.SerializeToString() for message in messages]
    every = [packed[place % len(packed)] for place in range(size.messages)]
    counts = {target.name: len(packed) for target in targets}
    found: dict[str, list[Load]] = {target.name: [] for target in targets}
    named = {target.name: target for target in targets}
    for round_, name in _turns(list(named)):
        load = serving_load.stream(named[name], f"{SERVICE}ScoreStream", every[: counts[name]], folder)
        counts[name] = max(len(packed), int(load.rate * size.seconds))
        tell(f"ScoreStream, round {round_}: {name}, {load.cpu_microseconds:,.0f} CPU us a message")
        if round_:
            found[name].append(load)
    return found


def rankings(
    targets: Sequence[Target], floor: Process, users: list[str], tell: Tell
) -> dict[str, list[float]]:
    """Median seconds of a `Recommend`, by server and for the floor, a round each, the first left out."""
    bodies = [pb.RecommendRequest(user_id=user, k=K).SerializeToString() for user in users]
    named = {target.name: target for target in targets}
    found: dict[str, list[float]] = {name: [] for name in (*named, "floor")}
    for round_, name in _turns(list(found)):
        seconds = (
            floor.ask("rank", users=users)["seconds"]
            if name == "floor"
            else serving_load.one_by_one(named[name], f"{SERVICE}Recommend", bodies)
        )
        median = statistics.median(seconds)
        tell(f"Recommend, round {round_}: {name}, {MILLISECONDS * median:.2f} ms")
        if round_:
            found[name].append(median)
    return found


def big(
    report: form.Report, bundle: Path, shape: tuple[int, int], size: Size, folder: Path, tell: Tell
) -> str:
    """Adds p50 and recall of a big catalogue; returns how it is ranked.  Raises  OpponentFailed"""
    target = serving_targets.ours(bundle, folder)
    tell("the big catalogue: starting")
    target.start()
    try:
        users = [str(user) for user in np.random.default_rng(1).integers(1, shape[0] + 1, size.big_rankings)]
        bodies = [pb.RecommendRequest(user_id=user, k=K).SerializeToString() for user in users]
        path = f"{SERVICE}Recommend"
        target.await_answer(lambda: serving_load.ask(target, bodies[0], path))
        medians = [
            statistics.median(serving_load.one_by_one(target, path, bodies)) for _ in range(form.REPEATS)
        ]
        answer = serving_load.ask(target, b"", f"{SERVICE}GetModel")
    finally:
        target.stop()
    ranking = pb.GetModelResponse.FromString(answer).ranking
    name = f"Recommend k={K} over {shape[1]:,} items"
    report.add("ours", f"{name}, p50", MILLISECONDS * statistics.median(medians), "ms")
    if not ranking.precision:
        return f"{name}: the server does not say how it ranks."
    report.add("ours", f"{name}, recall of the 100 best", ranking.recall, "share")
    how = "candidates of an index, ranked by the model" if ranking.approximate else "every item ranked"
    return f"{name}: {how}, {ranking.precision}. The vectors of this model are made up, not trained."


def _turns(names: list[str]) -> list[tuple[int, str]]:
    """Round and name, each round beginning with another."""
    return [
        (round_, name)
        for round_ in range(ROUNDS)
        for turn in (round_ % len(names),)
        for name in (*names[turn:], *names[:turn])
    ]
