"""Pruners at equal time, and TPE beside random search.

    python -m experiments.benchmarks.searching [--quick] --out DIR [--dataset ml-latest-small] [--trials 30]

A number of random settings is trained to the end once, and every epoch's NDCG@10 and CPU time is kept. Then Optuna's
pruners are shown these trials in many orders, each as if it were trained: what a pruner cuts short costs the time
until then, and the next trial begins. What counts is the best validation NDCG@10 that has been reached by the time.

The samplers train: each tries as many settings as the other, without pruning, from several seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from experiments import recipe, spaces, studies
from experiments.benchmarks import form, trained
from experiments.progress import Console, Silent
from experiments.recipe import Prepared
from experiments.study_config import MEMORY, PRUNERS, StudyConfig
from experiments.trials import METRIC, Trials
from widedeep.config import Config
from widedeep.training import Step

ABOUT = "Compare what ends trials early at equal time, and how settings are suggested at equal numbers."
SHARES = (0.25, 0.5, 0.75)  # of the time that all trials take to their ends
ORDERS = 100
SIZES = ("users", "items", "interactions")


@dataclass(frozen=True)
class Recorded:
    """A trial that was trained to its end.  epochs: number, NDCG@10, and CPU seconds by then"""

    epochs: tuple[tuple[int, float, float], ...]
    value: float
    seconds: float


@dataclass(frozen=True)
class Replayed:
    """What a pruner made of the trials in some order.  lost: it cut the best of all short"""

    best: float
    tried: int
    lost: bool


def record(config: Config, data: Prepared, count: int, minutes: float, console: Console) -> list[Recorded]:
    """The settings as given, and random ones, each trained to its end; none begins after so many minutes."""
    suggest = spaces.load("", config)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    known = recipe.select(config, data).recipe.chosen.closed_form
    found: list[Recorded] = []
    begun = time.monotonic()
    for number in range(count):
        if len(found) > 1 and time.monotonic() - begun > 60 * minutes:
            break
        suggested = suggest(study.ask(), config) if number else config
        started = time.process_time()
        epochs: list[tuple[int, float, float]] = []

        def watch(
            step: Step, started: float = started, epochs: list[tuple[int, float, float]] = epochs
        ) -> None:
            if step.head == "ranking" and METRIC in step.metrics:
                epochs.append((step.epoch, step.metrics[METRIC], time.process_time() - started))

        selection = recipe.select(suggested, data, watch, known)
        seconds = time.process_time() - started
        found.append(Recorded(tuple(epochs), selection.validation[METRIC], seconds))
        console.say(
            f"trial {number + 1} of {count}: {found[-1].value:.4f}, {len(epochs)} epochs, {seconds:.1f} CPU s"
        )
    return found


def replay(
    recorded: Sequence[Recorded], order: Sequence[int], name: str, epochs: int, budgets: Sequence[float]
) -> list[Replayed]:
    """Show the trials to the pruner `name` in this order; how it stands when each budget of CPU seconds is spent.

    budgets  ascending
    """
    study = optuna.create_study(
        direction="maximize",
        study_name=f"in the order {order[:5]}",  # Hyperband draws its brackets from it
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=studies.pruner(name, epochs),
    )
    winner = max(range(len(recorded)), key=lambda index: recorded[index].value)
    left, found = list(budgets), []
    spent, now = 0.0, Replayed(0.0, 0, False)
    for index in order:
        shown, trial = recorded[index], study.ask()
        pruned = _pruned_after(shown, trial)
        spent += shown.seconds if pruned is None else pruned
        while left and spent > left[0]:
            found.append(now)
            left.pop(0)
        if not left:
            return found
        if pruned is None:
            study.tell(trial, shown.value)
            now = Replayed(max(now.best, shown.value), now.tried + 1, now.lost)
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            now = Replayed(now.best, now.tried + 1, now.lost or index == winner)
    return found + [now] * len(left)


def _pruned_after(shown: Recorded, trial: optuna.Trial) -> float | None:
    """CPU seconds; None if it is not pruned."""
    for epoch, value, seconds in shown.epochs:
        trial.report(value, epoch)
        if trial.should_prune():
            return seconds
    return None


def pruners(report: form.Report, recorded: list[Recorded], epochs: int, orders: int) -> None:
    total = sum(trial.seconds for trial in recorded)
    best = max(trial.value for trial in recorded)
    report.add("all trials", "CPU time to their ends", total, "s")
    report.add("all trials", "best NDCG@10", best, "")
    shuffled = [random.Random(seed).sample(range(len(recorded)), len(recorded)) for seed in range(orders)]
    budgets = [share * total for share in SHARES]
    found = {name: [replay(recorded, order, name, epochs, budgets) for order in shuffled] for name in PRUNERS}
    rows = []
    for number, share in enumerate(SHARES):
        for name in PRUNERS:
            some = [one[number] for one in found[name]]
            reached = [one.best for one in some]
            mean, error = statistics.fmean(reached), statistics.stdev(reached) / len(reached) ** 0.5
            rows.append(
                [
                    f"{share:.0%}",
                    name,
                    f"{mean:.4f} ± {error:.4f}",
                    f"{statistics.fmean(one.tried for one in some):.1f}",
                    f"{statistics.fmean(one.lost for one in some):.1%}",
                ]
            )
            report.add(name, f"short of the best of all, in {share:.0%} of the time", best - mean, "NDCG@10")
    head = [
        "of the time of all",
        "pruner",
        "best NDCG@10 reached (mean ± its error)",
        "trials",
        "best of all was pruned",
    ]
    report.tables.append(form.table(head, rows))


def samplers(
    report: form.Report, config: Config, data: Prepared, count: int, seeds: int, console: Console
) -> None:
    settings = StudyConfig(trials=count, storage=MEMORY, pruner="none")
    suggest = spaces.load("", config)
    for name in ("TPE", "random"):
        best: list[list[float]] = []
        for seed in range(seeds):
            given = dataclasses.replace(settings, tune_seed=seed)
            sampler = (
                studies.sampler(given, 1, 0)
                if name == "TPE"
                else optuna.samplers.RandomSampler(seed=studies.seed(given, 1, 0))
            )
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial(spaces.nearest(suggest, config))
            study.optimize(Trials(config, data, given, suggest, Silent()).objective, n_trials=count)
            values = [trial.values[0] for trial in study.trials]
            best.append([max(values[: number + 1]) for number in range(count)])
            console.say(f"{name}, seed {seed}: {best[-1][-1]:.4f}")
        for number in sorted({count // 2, count}):
            mean = statistics.fmean(run[number - 1] for run in best)
            report.add(name, f"best NDCG@10 of {number} trials, mean of {seeds} seeds", mean, "")


def run(config: Config, options: argparse.Namespace, console: Console) -> form.Report:
    data = recipe.prepare(config.data, console)
    recorded = record(config, data, options.trials, options.minutes, console)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "recorded.json").write_text(json.dumps([dataclasses.asdict(trial) for trial in recorded]))
    report = form.Report(
        "Searching",
        f"{data.dataset.name} ({data.dataset.source}), {len(data.dataset.interactions):,} interactions; "
        f"{len(recorded)} trials recorded, of at most {config.train.ranking_epochs} epochs, and replayed in "
        f"{options.orders} orders. All NDCG@10 are of the validation part.",
    )
    pruners(report, recorded, config.train.ranking_epochs, options.orders)
    if options.sampled:
        samplers(report, config, data, options.sampled, options.seeds, console)
    report.notes += data.dataset.notes
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("searching", ABOUT)
    trained.add_flags(flags)
    for name, default, about in (
        ("trials", 30, "settings that are trained to their ends for the pruners"),
        ("minutes", 60, "after which no more of them begins"),
        ("sampled", 0, "settings that each sampler tries in each of its searches; 0: no samplers"),
        ("seeds", 5, "searches of each sampler"),
        ("orders", ORDERS, "in which the pruners see the trials"),
    ):
        flags.add_argument(f"--{name}", type=int, default=default, help=f"{about} (default: %(default)s)")
    for name in SIZES:
        flags.add_argument(f"--{name}", type=int, help="of dataset=synthetic")
    options = flags.parse_args(arguments)

    def make() -> form.Report:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        config = trained.configuration(options)
        if options.quick:
            options.trials, options.sampled, options.seeds, options.orders = 4, 3, 1, 5
        sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
        data = dataclasses.replace(config.data, **sizes)
        # nothing that is searched bears on the like head
        train = dataclasses.replace(config.train, epochs=1)
        return run(dataclasses.replace(config, data=data, train=train), options, Console())

    return form.deliver(make, options.out)


if __name__ == "__main__":
    sys.exit(main())
