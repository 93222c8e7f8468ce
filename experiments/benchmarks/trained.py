"""What benchmarks of a trained model share: the flags of its data, and the model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from widedeep.config import Config, DataConfig, TrainConfig
from widedeep.datasets import Dataset
from widedeep.interactions import Interactions, concatenate
from widedeep.recommender import Recommender
from widedeep.split import Split
from widedeep.training import Step


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--dataset", default="auto", help="MovieLens release, synthetic or auto (default: %(default)s)"
    )
    flags.add_argument("--data-dir", default="", help="folder that holds the release")


def configuration(options: argparse.Namespace) -> Config:
    """The defaults on the data of the flags; with --quick few epochs, on small made-up data unless named.

    Raises  ConfigError
    """
    if not options.quick:
        return Config(data=DataConfig(dataset=options.dataset, data_dir=options.data_dir))
    named = "synthetic" if options.dataset == "auto" else options.dataset
    data = DataConfig(
        dataset=named, data_dir=options.data_dir, users=200, items=300, interactions=8000, like_threshold=3.5
    )
    return Config(data=data, train=TrainConfig(epochs=1, ranking_epochs=3))


def train(
    config: Config,
    dataset: Dataset,
    parts: Split,
    keep: Callable[[Interactions], Interactions] = lambda rows: rows,
) -> Recommender:
    """Chosen on the validation part, then trained on it as well; the test part is not looked at.

    keep  the rows that training may see
    """
    _, found = Recommender.fit(
        config, dataset, keep(parts.train), keep(parts.validation), progress=_tell, stage="select"
    )
    rows = keep(concatenate([parts.train, parts.validation]))
    recommender, _ = Recommender.fit(
        config, dataset, rows, chosen=found.chosen, progress=_tell, stage="evaluate"
    )
    return recommender


def _tell(step: Step) -> None:
    if sys.stderr.isatty() and (step.metrics or step.epoch == 0):
        print(f"{step.head}: epoch {step.epoch} of at most {step.epochs}", file=sys.stderr)
