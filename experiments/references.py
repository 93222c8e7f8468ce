"""Where an earlier data set comes from that another is compared with: a run that kept it, or a file.

A run keeps its data set's profile and, for the ids that are new or gone, how often each id occurs. These ids are in
the run's bundle, too, so the files tell nothing that it does not.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd

from experiments import aliases, profiling, registry, tracking
from experiments.profile import Profile
from experiments.profiling import Examined
from experiments.progress import Console
from experiments.registry import Version
from experiments.store import check_store
from experiments.tally import Tally
from experiments.tracking import Run
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.errors import ConfigError, DataError, RegistryError, TrackingError

PROFILE, USERS, ITEMS = "data/profile.json", "data/user_ids.parquet", "data/item_ids.parquet"
MODEL = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
RUN_ID = re.compile(r"[0-9a-f]{32}")


def keep(found: Examined, run: Run) -> None:
    """Log what a later data set may be compared with."""
    run.json(found.profile.to_dict(), PROFILE)
    run.parquet(found.users.to_frame(), USERS)
    run.parquet(found.items.to_frame(), ITEMS)


def of_run(run_id: str) -> Examined:
    """What `keep` logged.

    Raises  TrackingError: the run or its files are not there;  DataError: they are not what `keep` wrote
    """
    profile = Profile.from_dict(json.loads(tracking.artifact(run_id, PROFILE).read_text(encoding="utf-8")))
    users, items = (
        Tally.from_frame(pd.read_parquet(tracking.artifact(run_id, path))) for path in (USERS, ITEMS)
    )
    return Examined(profile, users, items)


def of_version(version: Version) -> Examined:
    """What the run that made the version kept.

    Raises  DataError: that run kept no profile, or there is no such run any more
    """
    try:
        return of_run(version.run_id)
    except (TrackingError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{version} has no profile of its data to compare with: {reason}") from error


def named(where: str, config: DataConfig, console: Console) -> tuple[Examined, bool]:
    """What a person has named: a model, a run, a file or a data set.

    config   how a file or data set is read: its columns, tables, threshold
    Returns  it, and whether it came from a run, so that another name of the data set tells something
    Raises   ConfigError: it is none of these; what reading it raises
    """
    if where.startswith("models:/") or RUN_ID.fullmatch(where):
        check_store()
    if where.startswith("models:/"):
        return of_version(_version(where)), True
    if RUN_ID.fullmatch(where):
        return of_run(where), True
    if Path(where).expanduser().is_file():
        other = dataclasses.replace(config, dataset="files", ratings=where)
    elif where in (*datasets.DATASETS, "synthetic"):
        other = dataclasses.replace(config, dataset=where)
    else:
        raise ConfigError(
            f"--against {where} is no file, no data set, no run id and no models:/ address. Name an earlier file of "
            "interactions, models:/widedeep@champion, or the id of a run of validate or main."
        )
    return profiling.examine(datasets.load(other, progress=console.say), other), False


def _version(where: str) -> Version:
    found = MODEL.fullmatch(where)
    if found is None:
        raise ConfigError(
            f"{where} is no address of a model: write models:/NAME@ALIAS or models:/NAME/VERSION."
        )
    name, alias, number = found.groups()
    if number:
        return registry.version(name, int(number))
    version = aliases.aliased(name, alias)
    if version is None:
        raise RegistryError(
            f"No version of {name} has the alias {alias}. Look at the models in the MLflow UI."
        )
    return version
