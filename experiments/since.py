"""Train only where there is something new: `main --since champion`.

    mlflow run . -P since=champion
    python -m experiments main --dataset files --ratings plays.parquet --since champion

What decides the result (data, settings, search, the version of widedeep) makes a key, which a run and its version
carry. Where the version with the alias has the same key, or another version with that key was judged before, nothing
is trained. Otherwise it is said what is new, and the job goes on as always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from experiments import aliases, environment, registry, source_state, study_config, tracking
from experiments.jobs import JobConfig, promote_command
from experiments.jobs import to_dict as job_to_dict
from experiments.progress import Console
from experiments.recipe import SPLIT_FIELDS, Prepared
from experiments.registry import Version, reported
from experiments.study_config import StudyConfig
from experiments.tracked_data import InteractionsDataset
from experiments.tracking import Run
from widedeep.config import Config, to_dict
from widedeep.errors import TrackingError
from widedeep.files import sha256_of

KEY = "training_key"  # tag of runs and versions
PARTS = "training_key.json"  # what the key is made of
OUTCOME = "outcome"  # tag of a run that was asked to train only what is new
UNCHANGED, TRAINED = "unchanged", "trained"
OF_THE_MACHINE = ("device", "checkpoint", "resume", "cuda_graphs")
OF_THE_VERDICT = (
    "bootstrap", "register", "alias", "gate", "gate_samples", "experiment", "run_name", "since",
    "tensorboard", "on_drift", "max_psi", "max_new_users", "max_new_items", "max_lost",
)  # fmt: skip
OF_THE_WORK = ("storage", "study", "jobs")  # how a search is done, and not what it looks for
COUNTED = {"interactions": "num_rows", "users": "users", "items": "items"}  # fields of a data set's profile
BECAME = {  # by the verdict that a version carries
    "passed": "passed the gate",
    "refused": "was refused by the gate",
    "forced": "was given an alias without asking the gate",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """parts: all that decides what a main job comes to, by name"""

    parts: dict[str, Any]

    @classmethod
    def of(cls, config: Config, data: Prepared, job: JobConfig, settings: StudyConfig) -> Key:
        split = {name: value for name, value in to_dict(data.config).items() if name in SPLIT_FIELDS}
        train = {name: value for name, value in to_dict(config.train).items() if name not in OF_THE_MACHINE}
        rest = {name: value for name, value in job_to_dict(job).items() if name not in OF_THE_VERDICT}
        search = {
            name: value for name, value in study_config.to_dict(settings).items() if name not in OF_THE_WORK
        }
        if settings.search_space:
            search["search_space"] = sha256_of(Path(settings.search_space))
        return cls(
            {
                "data": data.dataset.digest,
                "tables": data.tables_digest,
                "widedeep": environment.version("widedeep"),
                **split,
                **to_dict(config.model),
                **train,
                **rest,
                **search,
            }
        )

    @property
    def text(self) -> str:
        """SHA-256 of the parts as canonical JSON."""
        canonical = json.dumps(self.parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def log(self, run: Run) -> None:
        run.tags({KEY: self.text})
        run.json(self.parts, PARTS)

    def mark(self, version: Version | None) -> None:
        """Write the key to a version that has been registered."""
        if version is not None:
            registry.annotate(version, tags={KEY: self.text})


def nothing_new(key: Key, data: Prepared, job: JobConfig, run: Run, console: Console) -> bool:
    """Whether the same was trained before, which the run then says; without `since` it is not asked.

    Raises  RegistryError
    """
    if not job.since:
        return False
    holder = aliases.aliased(job.register, job.since)
    found = _reason(key, holder, job)
    if found:
        run.tags({OUTCOME: UNCHANGED})
        run.describe(found)
        print(found)
        return True
    run.tags({OUTCOME: TRAINED})
    said = (
        _changes(key, holder, data, run)
        if holder
        else f"no version of {job.register} has the alias {job.since} yet"
    )
    console.say(f"since: {said}; training")
    return False


def _reason(key: Key, holder: Version | None, job: JobConfig) -> str:
    """Why nothing has to be trained, in a line; empty where something has."""
    if holder is not None and holder.tags.get(KEY) == key.text:
        return (
            f"Unchanged since {holder} ({job.since}): the same data (digest {key.parts['data'][:12]}) and the same "
            f"settings. Nothing was trained.{_other_source(holder)}"
        )
    alias = job.alias or job.since
    tried = _tried(key, job)
    if tried is None:
        return ""
    back, gate = tried.tags.get(f"{alias}.rolled_back"), tried.tags.get("gate", "")
    became = f"lost the alias {alias} on {back[:10]}" if back else BECAME.get(gate, "has not been judged")
    if gate == "refused":
        became += f" ({tried.tags.get('gate.reason', 'no reason given').rstrip('.')})"
    return (
        f"The same data (digest {key.parts['data'][:12]}) and the same settings made {tried} before, which "
        f"{became}. Nothing was trained.{_other_source(tried)} To have it judged again: "
        f"{promote_command(tried.name, tried.number, alias)}; with --force it takes the alias unasked."
    )


def _tried(key: Key, job: JobConfig) -> Version | None:
    """The latest version with the key about which there is a verdict, or is to be none."""
    with reported(f"look for versions of {job.register}"):
        made = MlflowClient().search_model_versions(f"name = '{job.register}' and tags.{KEY} = '{key.text}'")
    versions = [version for version in map(registry.version_of, made) if _settled(version, job)]
    return max(versions, key=lambda version: version.number, default=None)


def _settled(version: Version, job: JobConfig) -> bool:
    """Not so where a job has ended between the registration and the gate."""
    return not job.alias or version.tags.get("gate") in BECAME


def _other_source(version: Version) -> str:
    """A note where the source is not what it was: the key has its version alone."""
    with contextlib.suppress(MlflowException):
        then = MlflowClient().get_run(version.run_id).data.tags.get("git.commit", "")
        now = str(source_state.current())
        if then and now and then != now:
            return (
                f" The source has changed (commit {_short(then)}, now {_short(now)}), which does not count."
            )
    return ""


def _short(commit: str) -> str:
    return commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")


def _changes(key: Key, holder: Version, data: Prepared, run: Run) -> str:
    """What is other than it was for the version that has the alias."""
    then = _parts(holder)
    if then is None:
        return f"{holder} does not say what it was trained with"
    other = [name for name in sorted({*then, *key.parts}) if then.get(name) != key.parts.get(name)]
    said = []
    if "data" in other:
        said.append(_new_data(holder, data, run))
    if "tables" in other:
        said.append("other item or user tables")
    settings = [
        f"{name} {then.get(name)} -> {key.parts.get(name)}"
        for name in other
        if name not in ("data", "tables")
    ]
    return f"since {holder}: " + ", ".join([*said, *settings])


def _parts(version: Version) -> dict[str, Any] | None:
    with contextlib.suppress(TrackingError, OSError, ValueError):
        found = json.loads(tracking.artifact(version.run_id, PARTS).read_text())
        return found if isinstance(found, dict) else None
    return None


def _new_data(holder: Version, data: Prepared, run: Run) -> str:
    """Counts beside those of the version's data, also as metrics of the run."""
    try:
        made: Any = MlflowClient().get_run(holder.run_id)
        [used] = made.inputs.dataset_inputs
        then = json.loads(used.dataset.profile)
    except (MlflowException, AttributeError, ValueError, TypeError):
        return "other data"
    now = InteractionsDataset(data.dataset).profile
    more = {what: now[field] - then[field] for what, field in COUNTED.items() if field in then}
    run.metrics({f"since/{what}": count for what, count in more.items()})
    said = ", ".join(f"{count:+,} {what}" for what, count in more.items())
    last, times = then.get("last_timestamp"), data.dataset.interactions.timestamp
    if last is not None and times is not None:
        later = int((times > last).sum())
        run.metrics({"since/later_interactions": later})
        said += f" ({later:,} later than its last, of {datetime.fromtimestamp(last, UTC):%Y-%m-%d})"
    return f"other data, {said}"
