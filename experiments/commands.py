"""What each command takes and what it calls. Modules are imported when called: --help must not wait for MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from experiments import command_flags, flags
from experiments.flags import Parser, add_fields, config_from, section_from
from experiments.jobs import BatchConfig, JobConfig
from experiments.study_config import StudyConfig
from widedeep import distributed
from widedeep.config import TrainConfig
from widedeep.errors import ConfigError
from widedeep.launch import restarts

Given = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """help: one line for the list of commands;  text: what its own --help begins with

    several  torchrun may start it in several processes
    """

    help: str
    text: str
    add_flags: Callable[[Parser], None]
    call: Callable[[Given], None]
    several: bool = False


def _console() -> Any:
    from experiments import tracking
    from experiments.progress import Console

    tracking.quieten()
    return Console()


def _main(given: Given) -> None:
    config, job = config_from(given), section_from(given, JobConfig)
    settings = section_from(given, StudyConfig)
    from experiments import pipeline

    pipeline.job(config, job, settings, _console())


def _train(given: Given) -> None:
    config, job = config_from(given), section_from(given, JobConfig, register="", alias="")
    if job.alias and not job.register:
        raise ConfigError(
            f"An alias belongs to a registered model: --alias {job.alias} needs --register NAME."
        )
    if restarts() and config.train.checkpoint:
        config = replace(config, train=replace(config.train, resume=True))
    with distributed.join(config.train.device) as world:
        if world.rank:
            from experiments import follow

            follow.job(config, job, world)
        else:
            from experiments import train

            train.job(config, job, _console())


def _tune(given: Given) -> None:
    config, job = config_from(given), section_from(given, JobConfig)
    settings = section_from(given, StudyConfig)
    from experiments import pipeline

    pipeline.tune_job(config, job, settings, _console())


def _evaluate(given: Given) -> None:
    job = section_from(given, JobConfig)
    config_from(given)
    from experiments import evaluate

    evaluate.job(given, job, _console())


def _promote(given: Given) -> None:
    job, config = section_from(given, JobConfig), config_from(given)
    force = flags.is_true("force", given.get("force", "false"))
    back = flags.is_true("rollback", given.get("rollback", "false"))
    number = given.get("version", "")
    if not job.register or not job.alias:
        raise ConfigError("promote needs the names of a model and of an alias: --register NAME --alias NAME.")
    if back == bool(number):
        raise ConfigError("promote needs either --version N or --rollback.")
    which = 0 if back else flags.whole_number("version", number, 1, 2**31)
    from experiments import promote

    console = _console()
    print(promote.rollback(job) if back else promote.job(which, job, config, force=force, console=console))


def _reproduce(given: Given) -> None:
    job = section_from(given, JobConfig)
    select = flags.is_true("from_scratch", given.get("from_scratch", "true"))
    if not given.get("run_id"):
        raise ConfigError("reproduce needs the id of a run: reproduce RUN_ID, or -P run_id=RUN_ID")
    from experiments import reproduce

    reproduce.job(given, job, select=select, console=_console())


def _recommend(given: Given) -> None:
    batch = section_from(given, BatchConfig)
    from experiments import recommend

    recommend.job(batch, _console())


def _validate(given: Given) -> None:
    config, job = config_from(given), section_from(given, JobConfig)
    from experiments import validate

    validate.job(config.data, given.get("against", ""), job, _console())


def _sync(given: Given) -> None:
    from pathlib import Path

    from experiments import outbox, sync

    sync.job(Path(given.get("outbox", outbox.FOLDER)), _console())


def _doctor(given: Given) -> None:
    from experiments import doctor

    test_speed = flags.is_true("speed", given.get("speed", "true"))
    doctor.job(given.get("device", TrainConfig.device), test_speed=test_speed, console=_console())


COMMANDS = {
    "main": Command(
        "the main job: tune, train, evaluate, register, gate",
        "Load, validate, split, tune, train the best, evaluate it beside the baselines, refit it on everything,\n"
        "register it, and give it the alias if it beats the champion.\n\n"
        "  python -m experiments main --dataset ml-latest-small --data-dir PATH --trials 10",
        command_flags.search_settings(),
        _main,
    ),
    "train": Command(
        "train and evaluate one model, without a search",
        "Train one model, evaluate it beside the baselines, and log it; with --register NAME it is registered.\n"
        "An alias given with --alias is set without a gate.\n\n"
        "  python -m experiments train --dataset ml-latest-small --wide-l2 200\n"
        "  python -m experiments train --dataset files --ratings train.csv --user-col user --item-col item \\\n"
        "      --split none --register mymodel --alias champion\n\n"
        "In several processes that share every batch, of which the first alone writes:\n\n"
        "  torchrun --nproc-per-node 2 -m experiments train --dataset ml-latest-small",
        command_flags.settings(
            "bootstrap",
            "refit",
            "register",
            "alias",
            *command_flags.DRIFT_FIELDS,
            "experiment",
            "run_name",
            "tensorboard",
        ),
        _train,
        several=True,
    ),
    "tune": Command(
        "search for good settings on the validation part",
        "Search for good settings. They are judged on the validation part, never on the test part.\n\n"
        "  python -m experiments tune --dataset ml-latest-small --trials 20\n"
        "  python -m experiments tune --trials 200 --jobs 4 --study nightly\n\n"
        "Nothing is registered: --register and --alias say whose settings are tried early, the champion's.",
        command_flags.search_settings("register", "alias", "experiment", "run_name", "tensorboard"),
        _tune,
    ),
    "evaluate": Command(
        "judge a recipe beside the baselines on a split",
        "Judge a recipe beside the baselines. What is registered was refit on everything and has seen the test part,\n"
        "so its weights are never judged: its recipe is trained again on what comes before the test part.\n\n"
        "  python -m experiments evaluate --model models:/widedeep@champion\n"
        "  python -m experiments evaluate --model model.pth --split time",
        command_flags.evaluate_flags,
        _evaluate,
    ),
    "reproduce": Command(
        "train a run again and say whether it comes out the same",
        "Train a run again and compare: equal on the same machine with the same versions and source, within the 95%\n"
        "intervals elsewhere. Says what differs; the exit status is 0 if it is reproduced, else 2.\n\n"
        "  python -m experiments reproduce RUN_ID\n"
        "  python -m experiments reproduce RUN_ID --data-dir PATH",
        command_flags.reproduce_flags,
        _reproduce,
    ),
    "promote": Command(
        "move the alias to a version that earns it, or back",
        "Hold a version against the champion and move the alias if it has earned it; --rollback moves it back.\n\n"
        "  python -m experiments promote --version 3\n"
        "  python -m experiments promote --version 3 --force\n"
        "  python -m experiments promote --rollback",
        command_flags.promote_flags,
        _promote,
    ),
    "recommend": Command(
        "recommendations for many users into a file",
        "Write the best items of every user, or of those in a file, to Parquet or CSV.\n"
        "Columns: user_id, item_id, rank, score.\n\n"
        "  python -m experiments recommend --model models:/widedeep@champion --k 100 --out recs.parquet\n"
        "  python -m experiments recommend --users users.txt --out recs.csv",
        lambda parser: add_fields(parser, BatchConfig),
        _recommend,
    ),
    "validate": Command(
        "check a data set and print what is in it",
        "Read a data set, check it, and print a table of what is in it and how it splits. With --against it is held\n"
        "against an earlier one: exit status 2 where it has drifted.\n\n"
        "  python -m experiments validate --dataset files --ratings ratings.csv\n"
        "  python -m experiments validate --dataset files --ratings new.csv --against old.csv\n"
        "  python -m experiments validate --dataset ml-latest-small --against models:/widedeep@champion",
        command_flags.validate_flags,
        _validate,
    ),
    "sync": Command(
        "send to MLflow what waits since its server was away",
        "Send what a job could not write to MLflow, because the tracking server was away when it ended.\n\n"
        "  python -m experiments sync",
        command_flags.sync_flags,
        _sync,
    ),
    "doctor": Command(
        "say which device will be used and why, and how fast it is",
        "Look at the machine: device, driver, memory, versions, a short speed test, and what to do where a GPU is\n"
        "there and not used.\n\n"
        "  python -m experiments doctor",
        command_flags.doctor_flags,
        _doctor,
    ),
}
