"""The flags that each command takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from experiments.flags import Parser, add_fields, add_flag
from experiments.jobs import JobConfig
from experiments.study_config import StudyConfig
from widedeep.config import DataConfig, ModelConfig, TrainConfig

DRIFT_FIELDS = ("on_drift", "max_psi", "max_new_users", "max_new_items", "max_lost")


def settings(*job_fields: str) -> Callable[[Parser], None]:
    """Flags for all settings of data, model and training, and for those fields of JobConfig, or all of them."""

    def add(parser: Parser) -> None:
        for cls in (DataConfig, ModelConfig, TrainConfig):
            add_fields(parser, cls)
        add_fields(parser, JobConfig, job_fields or None)

    return add


def search_settings(*job_fields: str) -> Callable[[Parser], None]:
    def add(parser: Parser) -> None:
        add_fields(parser, StudyConfig)
        settings(*job_fields)(parser)

    return add


def validate_flags(parser: Parser) -> None:
    add_fields(parser, DataConfig)
    group = parser.add_argument_group("What it is held against")
    add_flag(
        group,
        "against",
        "earlier data to compare with: a file with the same columns, a data set, the id of a run, models:/NAME@ALIAS",
    )
    add_fields(parser, JobConfig, (*DRIFT_FIELDS, "experiment", "run_name"))


def evaluate_flags(parser: Parser) -> None:
    group = parser.add_argument_group("Which recipe")
    add_flag(
        group,
        "model",
        "models:/NAME@ALIAS, models:/NAME/VERSION or a .pth file, whose recipe is trained again on what comes "
        "before the test part; without it the settings in the flags. Flags that are given replace the recipe's values",
    )
    settings("bootstrap", "experiment", "run_name", "tensorboard")(parser)


def sync_flags(parser: Parser) -> None:
    add_flag(parser, "outbox", "folder in which it waits; default: mlflow-outbox")


def doctor_flags(parser: Parser) -> None:
    add_fields(parser, TrainConfig, ("device",))
    add_flag(parser, "speed", "test the speed, which takes about ten seconds; true if not given", hint=bool)


def reproduce_flags(parser: Parser) -> None:
    group = parser.add_argument_group("Which run")
    group.add_argument("run_id", metavar="RUN_ID", nargs="?", default=argparse.SUPPRESS, help="id of the run")
    add_flag(group, "run_id", "the same, as a flag")
    scratch = "select on the validation part again, too; false: train with what the run chose. Default: true"
    add_flag(group, "from_scratch", scratch, hint=bool)
    add_flag(
        group, "device", "auto, cpu, cuda, mps; not given: the one of the run, where this machine has it"
    )
    add_fields(parser, DataConfig, ("data_dir", "ratings", "item_table", "user_table"))
    add_fields(parser, JobConfig, ("experiment", "run_name"))


def promote_flags(parser: Parser) -> None:
    group = parser.add_argument_group("Which version")
    add_flag(group, "version", "number of the version that is to take the alias")
    add_flag(group, "force", "give it the alias without asking the gate", hint=bool)
    add_flag(group, "rollback", "give the alias back to the version that had it before", hint=bool)
    add_fields(parser, JobConfig, ("register", "alias", "gate", "gate_samples"))
    add_fields(parser, DataConfig, ("data_dir", "ratings"))
    add_fields(parser, TrainConfig, ("device", "precision"))
