"""Look at a data set before a model is made from it: profile, warnings, and drift against an earlier one.

What was found is logged with the run, as data/…; the tag `drift` is none, some or significant.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments import aliases, drift, references
from experiments.drift import Drift
from experiments.figures import profile as profile_figures
from experiments.figures.album import Album
from experiments.jobs import JobConfig
from experiments.measures import NONE, OTHER, SIGNIFICANT
from experiments.profile import Profile
from experiments.profiling import Examined
from experiments.progress import Console
from experiments.recipe import Prepared
from experiments.stages import timed
from experiments.tracking import Run
from widedeep.errors import DataError, DriftError, EmptyDataError

DRIFT, DRIFT_TABLE, OVERVIEW = "data/drift.json", "data/drift_table.json", "data/overview.png"
REASON_LENGTH = 4000  # what a tag has room for
MOST_IN_ERROR = 6  # measures that a refusal names; the others are in the table


@dataclass(frozen=True)
class Vetted:
    """reference, drift: None where there was nothing to compare with"""

    found: Examined
    warnings: list[str]
    reference: Examined | None = None
    drift: Drift | None = None


def vet(data: Prepared, job: JobConfig, run: Run, console: Console) -> None:
    """The stage of the jobs that register a model: against the data of the version that has the alias.

    Raises  DriftError: the data have drifted, and job.on_drift is refuse;  EmptyDataError: nothing is liked
    """
    timed(run, "vet", lambda: _against_champion(data, job, run, console))


def _against_champion(data: Prepared, job: JobConfig, run: Run, console: Console) -> None:
    examined = data.examined
    found = Vetted(examined, warnings(examined.profile))
    champion = None
    if job.register and job.on_drift != "ignore":
        champion = aliases.aliased(job.register, job.alias or JobConfig.alias)
    if champion is not None:
        try:
            reference = references.of_version(champion)
        except DataError as error:
            console.say(f"data: drift is not looked at. {error}")
        else:
            compared = drift.compare(reference, examined, job, same_name=True)
            found = Vetted(examined, found.warnings, reference, compared)
    log(found, run, console)
    for warning in found.warnings:
        console.say(f"warning: {warning}")
    if found.drift is None:
        return
    said = f"against those of {champion}: {found.drift.sentence()}"
    if found.drift.verdict != SIGNIFICANT:
        console.say(f"data: {said}")
    elif job.on_drift == "warn":
        console.loud(f"The data have drifted, and --on-drift warn goes on.\n{said}")
    else:
        raise refusal(found.drift, str(champion), f"the run's {DRIFT_TABLE}")


def refusal(found: Drift, against: str, where: str) -> DriftError:
    """What drifted, by how much, and what to do.  where: all measures are to be seen"""
    worst = found.found(SIGNIFICANT)
    lines = [f"  {measure}" for measure in worst[:MOST_IN_ERROR]]
    if len(worst) > MOST_IN_ERROR:
        lines.append(f"  and {len(worst) - MOST_IN_ERROR} more")
    if any(measure.name == OTHER for measure in worst):
        advice = (
            "If another data set is meant, give its model a name of its own with --register NAME, or go on"
        )
    else:
        advice = (
            "Check the export: its columns, its scale of ratings, its ids, and whether it is whole. If the change is "
            "meant, go on"
        )
    return DriftError(
        f"The data are not like those of {against} any more. Drift is significant in:\n"
        + "\n".join(lines)
        + f"\n{advice} with --on-drift warn (mlflow run: -P on_drift=warn). All measures are in {where}; "
        "docs/data.md has the limits."
    )


def log(found: Vetted, run: Run, console: Console) -> None:
    """Profile, ids, figure and, where there is a comparison, its table, metrics and tag."""
    references.keep(found.found, run)
    reference = None if found.reference is None else found.reference.profile
    Album(run, console).add(OVERVIEW, lambda: profile_figures.overview(found.found.profile, reference))
    if found.warnings:
        run.tags({"data.warnings": "; ".join(found.warnings)})
    if found.drift is not None:
        run.json(found.drift.to_dict(), DRIFT)
        run.table(found.drift.frame(), DRIFT_TABLE)
        run.metrics(found.drift.metrics())
        run.tags({"drift": found.drift.verdict})
        if found.drift.verdict != NONE:
            run.tags({"drift.reason": found.drift.sentence()[:REASON_LENGTH]})


def warnings(found: Profile) -> list[str]:
    """What is allowed and yet likely to disappoint.  Raises  EmptyDataError: nothing is liked"""
    if not found.liked:
        raise EmptyDataError(
            f"None of the {found.interactions:,} interactions is liked (rating >= {found.like_threshold:g}). "
            "Lower --like-threshold."
        )
    told = []
    middle = found.per_user.quantiles["50"]
    if middle < 5:
        told.append(f"half of the users have fewer than 5 interactions ({middle:g} in the middle)")
    if found.ratings is not None and found.liked == found.interactions:
        told.append(
            "every rating counts as liked, so there is no like-probability to learn: raise --like-threshold"
        )
    if found.first is not None and found.first == found.last:
        told.append("all timestamps are equal, so a split by time has only the item's id to go by")
    return told
