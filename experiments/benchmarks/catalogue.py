"""What an answer costs beside the matrix products that it is made of, in the library alone.

    python -m experiments.benchmarks.catalogue [--quick] --out DIR [--device cpu] [--million 1000000]

`recommend/floor` compares a ranking with its products (crosses, user half, items, the best ten), timed bare, in turns;
`score/layers` a batch of like-probabilities with the layers of the perceptron from the second on. The model is made
up: random weights cost what trained ones do. The large catalogue is ranked as a whole and, on a CPU with faiss, from
candidates. Run it with OMP_NUM_THREADS=1 for figures of one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from experiments.benchmarks import bare, form, made_up
from widedeep.candidates import is_installed
from widedeep.config import ModelConfig
from widedeep.device import resolve_device
from widedeep.queries import Query, ScoreQuery

A = TypeVar("A")
Q = TypeVar("Q")

ABOUT = "Rank and score with the library, against the bare matrix products."
ITEMS, QUICK_ITEMS = 10_677, 500
MILLION, QUICK_MILLION = 1_000_000, 3_000
BATCH = 64  # queries at once, and items that a score query asks about
K = 10
ROUNDS, QUICK_ROUNDS = 100, 5
LARGE_ROUNDS = 15
QUICK_CONFIG = ModelConfig(embedding_dim=8, hidden=(32, 16), ranking_hidden=32, ranking_dim=16, factor_dim=24)


def measure(items: int, device: str, rounds: int, config: ModelConfig | None) -> form.Report:
    report = form.Report(
        "The catalogue",
        f"{items:,} items, default shapes, histories of {made_up.SHORTEST} to {made_up.LONGEST} entries, on {device}, "
        f"{torch.get_num_threads()} thread(s). A made-up model of random weights.",
    )
    model = made_up.recommender(items, config=config, device=device)
    products, layers = bare.Products(model), bare.Layers(model)
    for count in (1, BATCH):
        queries = _groups([Query(user_id=str(user), k=K) for user in range(1, made_up.USERS + 1)], count)
        given = [products.of(model, [int(str(one.user_id)) for one in some]) for some in queries]
        number = rounds if count == 1 else max(form.REPEATS, rounds // 10)
        cases = [
            form.Case("rank", _in_turn(model.rank, queries, device)),
            form.Case("floor", _in_turn(lambda some: products.rank(some, K), given, device)),
        ]
        timings = form.interleave(cases, number)
        name = f"{count} quer{'y' if count == 1 else 'ies'}"
        for case, timing in timings.items():
            report.add(case, name, timing.wall_median * 1e3, "ms")
        ratio = form.ratio_of_costs(timings["rank"].wall_median, timings["floor"].wall_median)
        report.ratios["recommend/floor" + ("" if count == 1 else f", {name}")] = ratio
    generator = np.random.default_rng(0)
    scored = [
        ScoreQuery(str(user), [str(item) for item in generator.integers(1, items + 1, BATCH)])
        for user in range(1, made_up.USERS + 1)
    ]
    hidden = [layers.input(BATCH * BATCH).to(model.device)]
    cases = [
        form.Case("score", _in_turn(model.score_batch, _groups(scored, BATCH), device)),
        form.Case("layers", _in_turn(layers.score, hidden, device)),
    ]
    timings = form.interleave(cases, max(form.REPEATS, rounds // 5))
    for case, timing in timings.items():
        report.add(
            case, f"{BATCH} queries of {BATCH} items", timing.wall_median * 1e6 / BATCH**2, "us an item"
        )
    report.ratios["score/layers"] = form.ratio_of_costs(
        timings["score"].wall_median, timings["layers"].wall_median
    )
    return report


def measure_large(
    report: form.Report, items: int, device: str, rounds: int, config: ModelConfig | None
) -> None:
    model = made_up.recommender(items, users=200, config=config, device=device)
    queries = _groups([Query(user_id=str(user), k=K) for user in range(1, 200)], 1)
    name = f"{items:,} items"

    def add(ranked: str) -> None:
        run = _in_turn(model.rank, queries, device)
        timing = form.interleave([form.Case(ranked, run)], rounds)[ranked]
        report.add(ranked, f"{name}, 1 query", timing.wall_median * 1e3, "ms")

    started = time.perf_counter()
    method = model.prepare(exact_up_to=items, precision="auto")
    report.add(method.precision, f"{name}, prepare", time.perf_counter() - started, "s")
    report.add(method.precision, f"{name}, agreement on the best 100", method.precision_agreement, "")
    add("exact")
    batches = _groups([Query(user_id=str(user), k=K) for user in range(1, 200)], BATCH)
    timing = form.interleave([form.Case("many", _in_turn(model.rank, batches, device))])["many"]
    report.add("exact", f"{name}, {BATCH} queries at once", BATCH / timing.wall_median, "users/s")
    if model.device.type != "cpu" or not is_installed():
        report.notes.append("No candidates: they need a CPU and faiss (pip install faiss-cpu).")
        return
    started = time.perf_counter()
    method = model.prepare(exact_up_to=0, precision="float32")
    report.add("candidates", f"{name}, prepare", time.perf_counter() - started, "s")
    report.add("candidates", f"{name}, recall of the best 100", method.recall, "")
    add("candidates")
    report.notes.append(
        "Recall is against the exact ranking, wide part included, over users of made-up vectors that have no clusters."
    )


def _groups(queries: Sequence[Q], count: int) -> list[list[Q]]:
    """Whole groups of `count`."""
    whole = len(queries) // count * count
    return [list(queries[start : start + count]) for start in range(0, whole, count)]


def _in_turn(call: Callable[[A], object], arguments: Sequence[A], device: str) -> Callable[[], object]:
    """Call with the next of the arguments each time, so that no cache knows it, and wait for the device."""
    place = -1

    def run() -> object:
        nonlocal place
        place = (place + 1) % len(arguments)
        found = call(arguments[place])
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return found

    return run


def run(quick: bool, device: str, million: int) -> form.Report:
    where = str(resolve_device(device))
    config = QUICK_CONFIG if quick else None
    report = measure(QUICK_ITEMS if quick else ITEMS, where, QUICK_ROUNDS if quick else ROUNDS, config)
    measure_large(report, million, where, form.REPEATS if quick else LARGE_ROUNDS, config)
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("catalogue", ABOUT)
    flags.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    flags.add_argument("--million", type=int, help=f"items of the large catalogue (default: {MILLION:,})")
    options = flags.parse_args(arguments)
    million = options.million or (QUICK_MILLION if options.quick else MILLION)
    return form.deliver(lambda: run(options.quick, options.device, million), options.out)


if __name__ == "__main__":
    sys.exit(main())
