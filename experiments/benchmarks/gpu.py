"""Training and inference on one GPU: correct as on the CPU, and how fast.

    python -m experiments.benchmarks.gpu [--quick] --out DIR [--rows 10000000] [--device auto] [--quality]

Needs torch, numpy and pandas alone. First the same small training on the CPU and on the device, which have to agree,
or the command ends with exit status 1. Then an epoch of the like head at ML-10M's shape, its steps launched one by one
and as one CUDA graph; an epoch of the ranking at the same shape, with its share of the roofline; and inference. On a
machine without a GPU all of it runs on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from experiments.benchmarks import form, roofline
from experiments.benchmarks.agreement import compare
from experiments.benchmarks.heads import Data, Epochs, LikeHead, Ranking, made
from experiments.speed import median_seconds
from widedeep.config import PRECISIONS, Config, TrainConfig
from widedeep.device import resolve_device, resolve_precision
from widedeep.errors import ConfigError, TrainingError

ABOUT = "Train and score on one GPU, after a check that it comes to what the CPU does."
USERS, ITEMS, ROWS = 69_878, 10_677, 10_000_000
BATCHES = (2048, 16_384, 131_072)  # rows a step of the like head
QUICK = (300, 200, 6000)
QUICK_BATCHES = (256, 2048)
QUALITY_ROWS = 900_000  # of the training part: fewer than those from which on a CPU trains in another way
INFERENCE_ROWS = 10_000
KINDS = {False: "plain", True: "graphs"}


class DisagreementError(TrainingError):
    """The device comes to something else than the CPU."""


@dataclass(frozen=True)
class Settings:
    users: int
    items: int
    rows: int
    batches: tuple[int, ...]
    device: torch.device
    precision: str
    quality_rows: int  # of the training part, at most

    def config(
        self, batch: int | None = None, graphs: bool = False, device: torch.device | None = None
    ) -> Config:
        used = device or self.device
        precision = self.precision if used == self.device else "auto"
        return Config(
            train=TrainConfig(batch_size=batch, cuda_graphs=graphs, device=used.type, precision=precision)
        )


def run(settings: Settings, tell: Callable[[str], None]) -> form.Report:
    """Raises  DisagreementError"""
    device, dtype = settings.device, resolve_precision(settings.precision, settings.device)
    report = form.Report(
        "Training on one GPU",
        f"{settings.rows:,} interactions of {settings.users:,} users and {settings.items:,} items, nine tenths of them "
        f"trained on; device {device}, {str(dtype).removeprefix('torch.')}.",
    )
    if device.type != "cuda":
        report.notes.append(
            f"No GPU was used: all figures are of the {device}, where graphs are steps one by one."
        )
    check(report, device, tell)
    tell(f"making {settings.rows:,} interactions")
    data = made(settings.users, settings.items, settings.rows)
    tell("measuring what the device can do")
    peaks = roofline.Peaks.measured(device, dtype)
    report.add(
        "device",
        f"product of matrices, {str(dtype).removeprefix('torch.')}",
        peaks.operations / 1e12,
        "TFLOP/s",
    )
    report.add("device", "copy", peaks.bytes / 1e9, "GB/s")
    like_head(report, settings, data, peaks, tell)
    quality(report, settings, data, tell)
    ranking(report, settings, data, peaks, tell)
    report.notes += [
        f"Seconds of an epoch are on the clock from the end of one to the end of the next, with all of their "
        f"parts: median of {form.REPEATS} after one that warms up.",
        "The share of the roofline is the least time for the products' operations or for the bytes that have to be "
        "moved, whichever is longer, at the rates measured above, as a share of the time taken. Bytes are counted by "
        "formula: Adam reads and writes eight floats a parameter; see roofline.py for the rest.",
        "Quality is of the validation part after one epoch over as many rows on both sides.",
    ]
    return report


def check(report: form.Report, device: torch.device, tell: Callable[[str], None]) -> None:
    """Raises  DisagreementError"""
    tell(f"comparing {device} with the CPU")
    comparisons = compare(device)
    wrong = [str(comparison) for comparison in comparisons if not comparison.agrees]
    if wrong:
        raise DisagreementError(
            f"Trained on {device} the model is not what it is on the CPU. Nothing was measured.\n"
            + "\n".join(wrong)
        )
    for comparison in comparisons:
        report.add(
            comparison.name, "largest difference of losses to the CPU", comparison.losses, "of their size"
        )
        report.add(comparison.name, "largest difference of logits to the CPU", comparison.logits, "")


def like_head(
    report: form.Report,
    settings: Settings,
    data: Data,
    peaks: roofline.Peaks,
    tell: Callable[[str], None],
) -> None:
    """Epochs at every batch size, step by step and captured; then inference."""
    head = LikeHead(data, settings.config(), settings.device)
    columns = head.net.like.linear.in_features
    for size in settings.batches:
        found: dict[bool, Epochs] = {}
        for graphs in (False, True):
            name = f"like head, {KINDS[graphs]}, {size:,} rows a step"
            tell(name)
            found[graphs] = epochs = head.train(settings.config(size, graphs), form.REPEATS + 1)
            steps = -(-len(data.train) // size)
            inputs = columns + 2 * Config().model.embedding_dim
            work = roofline.Work(head.operations(size), roofline.like_bytes(head.parameters, size, inputs))
            report.add(name, "epoch", epochs.seconds, "s")
            report.add(name, "training", len(data.train) / epochs.seconds, "rows/s")
            share = work.least_seconds(peaks) * steps / epochs.seconds
            report.add(name, "share of the roofline", 100 * share, "%")
            report.add(name, "validation AUC after one epoch", epochs.auc, "")
            add_memory(report, name, epochs)
        ratio = form.ratio_of_costs(found[True].seconds, found[False].seconds)
        report.ratios[f"graphs/plain, {size:,} rows a step"] = ratio
    rows = data.validation.take(torch.arange(min(INFERENCE_ROWS, len(data.validation))))
    milliseconds = 1000 * median_seconds(head.scorer(rows), settings.device)
    report.add("like head", f"inference of {len(rows):,} rows", milliseconds, "ms")


def quality(report: form.Report, settings: Settings, data: Data, tell: Callable[[str], None]) -> None:
    """The like head's after one epoch on the device and on the CPU, and what the second epoch takes."""
    part, size = data.part(settings.quality_rows), settings.batches[0]
    cpu = torch.device("cpu")
    cases = {f"{settings.device}, {kind}": (settings.device, graphs) for graphs, kind in KINDS.items()}
    if settings.device != cpu:
        cases["cpu"] = (cpu, False)
    seconds = {}
    for name, (device, graphs) in cases.items():
        tell(f"quality: {name}")
        head = LikeHead(part, settings.config(size, graphs, device), device)
        epochs = head.train(settings.config(size, graphs, device), 2)
        metric = f"validation AUC after one epoch of {len(part.train):,} rows, {size:,} a step"
        report.add(name, metric, epochs.auc, "")
        report.add(name, f"epoch of {len(part.train):,} rows, {size:,} a step", epochs.seconds, "s")
        seconds[name] = epochs.seconds
    if settings.device != cpu:
        fastest = min(value for name, value in seconds.items() if name != "cpu")
        report.ratios[f"gpu/cpu, {size:,} rows a step"] = form.ratio_of_costs(fastest, seconds["cpu"])


def ranking(
    report: form.Report,
    settings: Settings,
    data: Data,
    peaks: roofline.Peaks,
    tell: Callable[[str], None],
) -> None:
    """Epochs of the default model's."""
    tell("ranking")
    head = Ranking(data, settings.config(), settings.device)
    epochs = head.train(form.REPEATS + 1)
    size = min(head.users, settings.config().train.user_batch_size)
    work = roofline.Work(
        head.operations(), roofline.ranking_bytes(head.parameters, size, head.net.item_count)
    )
    report.add("ranking", "epoch", epochs.seconds, "s")
    report.add("ranking", "training", head.rows / epochs.seconds, "rows/s")
    report.add("ranking", "training", head.users / epochs.seconds, "users/s")
    report.add("ranking", "operations of a step", work.operations / 1e9, "GFLOP")
    report.add("ranking", "bytes of a step, at least", work.bytes / 1e9, "GB")
    share = work.least_seconds(peaks) * head.steps / epochs.seconds
    report.add("ranking", "share of the roofline", 100 * share, "%")
    add_memory(report, "ranking", epochs)


def add_memory(report: form.Report, name: str, epochs: Epochs) -> None:
    if epochs.memory is not None:
        report.add(name, "peak memory of the GPU", epochs.memory / 2**20, "MiB")


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("gpu", ABOUT)
    flags.add_argument("--rows", type=int, help=f"interactions to make (default {ROWS:,})")
    flags.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    flags.add_argument(
        "--precision",
        default="auto",
        choices=[name for name in PRECISIONS if name != "fp16"],
        help="of the device",
    )
    flags.add_argument(
        "--quality", action="store_true", help=f"compare with the CPU on all rows, not on {QUALITY_ROWS:,}"
    )
    options = flags.parse_args(arguments)
    users, items, rows = QUICK if options.quick else (USERS, ITEMS, ROWS)
    if options.rows is not None and not 4 * users <= options.rows <= users * items:
        flags.error(f"--rows must be from {4 * users} to {users * items}, got {options.rows}")
    rows = options.rows or rows
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)

    def report() -> form.Report:
        settings = Settings(
            users,
            items,
            rows,
            QUICK_BATCHES if options.quick else BATCHES,
            resolve_device(options.device),
            options.precision,
            rows if options.quality else QUALITY_ROWS,
        )
        if settings.device.type not in ("cpu", "cuda"):
            raise ConfigError(
                f"This measures a CUDA device or the CPU, not {settings.device}. Use --device cpu."
            )
        return run(settings, tell)

    return form.deliver(report, options.out)


if __name__ == "__main__":
    sys.exit(main())
