"""Offer the server up to three times what it can answer: how much is still answered in time?

    python -m experiments.benchmarks.overload [--quick] --out DIR [--only Score]

Goodput is answers within the deadline of one second, a second. The capacity is found by a rising rate; calls then come
at their times whatever becomes of them, over several connections, in rounds of all rates in turn.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks import form, overload_client, serving_models, survival_server
from experiments.benchmarks.opponents.servers import CLIENT_CORE, Target, on_core
from experiments.benchmarks.overload_client import Outcome
from experiments.benchmarks.serving_targets import SERVICE
from server.pb import recommender_pb2 as pb

ABOUT = "Offer more than can be answered; report goodput, refusals and latency."
METHODS = ("Score", "Recommend")
DEADLINE, CONNECTIONS = 1.0, 4
FLAGS = ("--log-level", "warning", "--max-wait", "0.5")
ENOUGH = 0.97  # share that must be answered for the rate to rise further
ITEMS, K, BODIES = 64, 10, 500
EXHAUSTED = 8  # RESOURCE_EXHAUSTED
GOAL = 0.9
COLOURS = {"Score": "#3B6FB6", "Recommend": "#C8553D"}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """
    shape    users, items, interactions
    factors  of the capacity that are offered
    seconds  of counted load, each time;  rest  between two, in which all that waits is gone
    first    rate that is tried, calls a second;  rise  from one try to the next
    """

    shape: tuple[int, int, int]
    factors: tuple[float, ...]
    seconds: float
    rest: float
    repeats: int
    first: float
    rise: float


FULL = Size((6040, 10_677, 300_000), (0.5, 1.0, 1.5, 2.0, 3.0), 3.0, 1.5, 3, 100.0, 1.35)
QUICK = Size(survival_server.SHAPE, (1.0, 3.0), 0.5, 0.2, 1, 250.0, 2.5)


@dataclass(frozen=True)
class Run:
    """What came of one load.  goodput  answers within the deadline, a second"""

    goodput: float
    outcome: Outcome

    def quantile(self, share: float) -> float:
        """Milliseconds, of what was answered."""
        return 1e3 * float(np.quantile(self.outcome.seconds, share)) if self.outcome.seconds else float("nan")


def bodies(method: str, shape: tuple[int, int, int]) -> list[bytes]:
    """Different requests, the same in every run."""
    draw, (users, items, _) = random.Random(0), shape
    return [
        pb.RecommendRequest(user_id=str(draw.randint(1, users)), k=K).SerializeToString()
        if method == "Recommend"
        else pb.ScoreRequest(
            user_id=str(draw.randint(1, users)),
            item_ids=[str(draw.randint(1, items)) for _ in range(ITEMS)],
        ).SerializeToString()
        for _ in range(BODIES)
    ]


class Load:
    """One method's load on one server."""

    def __init__(self, target: Target, method: str, size: Size) -> None:
        self._target = target
        self._path = SERVICE + method
        self._size = size
        self._bodies = bodies(method, size.shape)

    def at(self, rate: float) -> Run:
        time.sleep(self._size.rest)
        seconds = self._size.seconds
        with on_core(CLIENT_CORE):
            outcome = overload_client.offer(
                self._target.port, self._path, self._bodies, rate, seconds, DEADLINE, CONNECTIONS
            )
        return Run(outcome.answers / seconds, outcome)

    def capacity(self, tell: Tell) -> float:
        """Calls a second: the most that were answered while the rate rose, until it was too much twice in a row."""
        rate, best, too_much = self._size.first, 0.0, 0
        while too_much < 2:
            found = self.at(rate)
            best = max(best, found.goodput)
            tell(f"{self._path} at {rate:.0f}/s: {found.goodput:.0f}/s")
            too_much = too_much + 1 if found.goodput < ENOUGH * rate else 0
            rate *= self._size.rise
        return best


def run(methods: Sequence[str], size: Size, folder: Path, tell: Tell) -> tuple[form.Report, Figure]:
    """Raises  OpponentFailed: the server does not start"""
    bundle = serving_models.bundle_of(size.shape, folder)
    target = survival_server.started(survival_server.target(str(bundle), folder, *FLAGS))
    found: dict[tuple[str, float], list[Run]] = {}
    capacities = {}
    try:
        loads = {method: Load(target, method, size) for method in methods}
        for method, load in loads.items():
            capacities[method] = load.capacity(tell)
        for round_ in range(size.repeats):
            for method, load in loads.items():
                turn = round_ % len(size.factors)
                for factor in (*size.factors[turn:], *size.factors[:turn]):
                    got = load.at(factor * capacities[method])
                    found.setdefault((method, factor), []).append(got)
                    tell(f"round {round_ + 1} of {size.repeats}: {method} at {factor:g}: {got.goodput:.0f}/s")
    finally:
        target.stop()
    report = form.Report(
        "Overload",
        f"Score of {ITEMS} items and Recommend of k={K} over {size.shape[1]:,} items, offered at multiples of the "
        f"capacity over {CONNECTIONS} connections, deadline {DEADLINE:g} s; medians of {size.repeats} rounds of "
        f"{size.seconds:g} s. Server and client on a core each, where there are two.",
    )
    fill(report, capacities, found)
    return report, figure(found, capacities)


def fill(
    report: form.Report, capacities: dict[str, float], found: dict[tuple[str, float], list[Run]]
) -> None:
    for method, capacity in capacities.items():
        report.add(method, "capacity, by a rising rate", capacity, "calls/s")
    for (method, factor), runs in sorted(found.items()):
        name = f"{method} at {factor:g}"
        report.add(name, "goodput", statistics.median(one.goodput for one in runs), "answers/s")
        for what, count in _median_shares(runs).items():
            report.add(name, what, count, "% of calls")
        for share in (0.5, 0.99):
            if all(one.outcome.seconds for one in runs):
                value = statistics.median(one.quantile(share) for one in runs)
                report.add(name, f"p{100 * share:.0f} of the answered", value, "ms")
    for method in capacities:
        if (method, 1.0) in found and (method, 3.0) in found:
            best = max(_goodput(runs) for (name, _), runs in found.items() if name == method)
            kept = form.ratio_of_gains(_goodput(found[method, 3.0]), best)
            report.ratios[f"{method} at 3/at its best"] = kept
            verdict = "kept" if kept >= GOAL else "not kept"
            report.notes.append(
                f"{method}: {GOAL:.0%} of the best goodput is {verdict} at 3 times the capacity."
            )
    report.notes += [
        "Refused: RESOURCE_EXHAUSTED with RetryInfo, by the server's queue. Turned away: by gRPC's own threads, before "
        "Python sees the call, with HTTP/2's REFUSED_STREAM (sent again by gRPC's clients) or with CANCELLED. Held "
        "back: never sent, as the connection had as many calls in flight as the server allows.",
    ]


def _goodput(runs: Sequence[Run]) -> float:
    return statistics.median(one.goodput for one in runs)


def _median_shares(runs: Sequence[Run]) -> dict[str, float]:
    """Percent of the calls, by what came of them."""
    found: dict[str, list[float]] = {}
    for one in runs:
        outcome, whole = one.outcome, max(1, one.outcome.offered) / 100
        codes = Counter(outcome.codes)
        exhausted = codes.pop(EXHAUSTED, 0)
        for what, count in (
            ("refused", outcome.advised),
            ("turned away", outcome.reset + codes.total() + exhausted - outcome.advised),
            ("late", outcome.late - outcome.unsent),
            ("held back until too late", outcome.unsent),
        ):
            found.setdefault(what, []).append(count / whole)
    return {what: statistics.median(shares) for what, shares in found.items()}


def figure(found: dict[tuple[str, float], list[Run]], capacities: dict[str, float]) -> Figure:
    """Goodput and p99 over what is offered, each as a share of the capacity."""
    drawn = Figure(figsize=(9, 4.2), dpi=120, layout="constrained")
    left, right = drawn.subplots(1, 2)
    factors = sorted({factor for _, factor in found})
    left.plot(
        [0, 1, max(factors)], [0, 1, 1], color="#999999", linewidth=1, linestyle="--", label="best possible"
    )
    for method, capacity in capacities.items():
        goodput = [_goodput(found[method, factor]) / capacity for factor in factors]
        late = [
            statistics.median(one.quantile(0.99) for one in found[method, factor]) / 1e3 for factor in factors
        ]
        left.plot(factors, goodput, marker="o", color=COLOURS[method], label=f"{method}, {capacity:,.0f}/s")
        right.plot(factors, late, marker="o", color=COLOURS[method], label=method)
    left.set_ylabel("Answered in time / capacity")
    left.legend(frameon=False, loc="lower right")
    right.set_ylabel("p99 of the answered, s")
    right.axhline(DEADLINE, color="#999999", linewidth=1, linestyle="--")
    right.annotate("deadline", (factors[0], DEADLINE), (2, 4), textcoords="offset points", fontsize=8)
    for axis in (left, right):
        axis.set_xlabel("Offered / capacity")
        axis.set_ylim(bottom=0, top=max(1.2, axis.get_ylim()[1]))
        axis.grid(True, color="#DDDDDD", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    return drawn


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("overload", ABOUT)
    flags.add_argument("--only", choices=METHODS, help="one method alone")
    given = flags.parse_args(arguments)
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    methods = (given.only,) if given.only else METHODS
    size = QUICK if given.quick else FULL

    def make() -> form.Report:
        with tempfile.TemporaryDirectory() as folder:
            report, drawn = run(methods, size, Path(folder), tell)
        given.out.mkdir(parents=True, exist_ok=True)
        drawn.savefig(given.out / "overload.png")
        return report

    return form.deliver(make, given.out)


if __name__ == "__main__":
    sys.exit(main())
