"""Where the time of the like head's training steps goes.

    python -m experiments.benchmarks.steps [--quick] --out DIR [--rows 1200000]

One epoch of the loop that `fit` runs, on the CPU, with tables of ML-10M's size: rows per CPU second without the
profiler, then the operators that take most, by torch's profiler, of the same loop over again.
"""

from __future__ import annotations

import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks import form
from widedeep.checkpoint import Checkpoint
from widedeep.config import Config, TrainConfig
from widedeep.datasets import synthetic
from widedeep.features import FeatureProcessor
from widedeep.histories import Encoded, Histories
from widedeep.like_objective import LikeObjective
from widedeep.model import WideDeepNet
from widedeep.training import Step, train_head

ABOUT = "Profile the like head's training steps on the CPU."
USERS, ITEMS, ROWS = 69_878, 10_677, 1_200_000
QUICK = (300, 200, 5000)
SHOWN = 15  # operators
CONFIG = Config(train=TrainConfig(device="cpu"))


def epoch(processor: FeatureProcessor, train: Encoded, measured: bool) -> tuple[float, int, bool, object]:
    """CPU seconds of an epoch's steps, how many they are, whether they went by rows, and the profile of them."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    net = WideDeepNet.for_data(CONFIG.model, processor, train)
    histories = Histories.from_encoded(train, processor.user_count)
    objective = LikeObjective(CONFIG, net, train, histories, None, device)
    moments: list[float] = []

    def watch(step: Step) -> None:
        if not step.metrics:
            moments.append(time.process_time())

    with profile(activities=[ProfilerActivity.CPU]) if measured else torch.enable_grad() as found:
        train_head(CONFIG, net, objective, 1, device, watch, Checkpoint(None, False, ""))
    return moments[-1] - moments[0], len(moments) - 1, net.like.by_rows, found


def run(users: int, items: int, rows: int) -> form.Report:
    interactions, item_frame, user_frame, _ = synthetic.generate(users, items, rows, seed=0)
    processor = FeatureProcessor.fit(interactions, item_frame, user_frame, CONFIG.data.like_threshold)
    train = processor.encode(interactions)
    seconds, steps, by_rows, _ = epoch(processor, train, measured=False)
    report = form.Report(
        "Steps of the like head",
        f"{rows:,} rows of {users:,} users and {items:,} items, {torch.get_num_threads()} thread(s), trained "
        f"{'by rows' if by_rows else 'by Adam alone'}.",
    )
    per_step = rows / (steps + 1)
    report.add("like head", "training", steps * per_step / seconds, "rows per CPU s")
    report.add("like head", "step", 1000 * seconds / steps, "CPU ms")
    report.add("like head", "rows of a step", per_step, "rows")
    *_, found = epoch(processor, train, measured=True)
    assert isinstance(found, profile)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:SHOWN]:
        report.add(event.key, "share of the time", 100 * event.self_cpu_time_total / total, "%")
    report.notes.append("Shares are of the operators' own time on the clock, the first steps included.")
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("steps", ABOUT)
    flags.add_argument("--rows", type=int, help=f"interactions to make (default {ROWS:,})")
    options = flags.parse_args(arguments)
    users, items, rows = QUICK if options.quick else (USERS, ITEMS, ROWS)
    if options.rows is not None and not users <= options.rows <= users * items:
        flags.error(f"--rows must be from {users} to {users * items}, got {options.rows}")
    return form.deliver(lambda: run(users, items, options.rows or rows), options.out)


if __name__ == "__main__":
    sys.exit(main())
