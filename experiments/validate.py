"""Check a data set, print what is in it, and hold it against an earlier one.

    mlflow run . -e validate -P dataset=ml-latest-small
    python -m experiments validate --dataset files --ratings ratings.csv --on-bad-rows repair
    python -m experiments validate --dataset files --ratings new.csv --against old.csv
    python -m experiments validate --dataset ml-latest-small --against models:/widedeep@champion

Reading it is the check: rows that are no interactions end it with an error that names them, unless they are to be
repaired; then the repairs are listed. What was found is kept in a run, for later data to be held against. The exit
status is 2 where the data cannot be trained on or have drifted (with --on-drift warn: 0).
"""

from __future__ import annotations

from experiments import drift, profiling, references, report, vetting
from experiments.jobs import JobConfig
from experiments.measures import SIGNIFICANT
from experiments.progress import Console
from experiments.tracking import open_run
from experiments.vetting import Vetted
from widedeep import datasets
from widedeep.config import DataConfig, to_dict
from widedeep.datasets import Dataset
from widedeep.errors import ConfigError
from widedeep.split import Split, split


def job(config: DataConfig, against: str, job_config: JobConfig, console: Console) -> None:
    """The entry point `validate`.  against: the earlier data set, see references.named; empty: none

    Raises  DriftError: drift is significant
    """
    if against and job_config.on_drift == "ignore":
        raise ConfigError("--on-drift ignore does not compare: leave out --against, or use --on-drift warn.")
    dataset = datasets.load(config, progress=console.say)
    examined = profiling.examine(dataset, config)
    profile = examined.profile
    print(report.plain_table([["", dataset.name], *([what, value] for what, value in profile.rows())]))
    for note in dataset.notes:
        print(f"note: {note}")
    found = Vetted(examined, vetting.warnings(profile))
    parts = split(dataset.interactions, config)
    if not len(parts.validation):
        found.warnings.append("the validation part is empty, so nothing can be chosen on it")
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"split {parts.description}")
    print("the data can be trained on")
    if against:
        reference, same_name = references.named(against, config, console)
        compared = drift.compare(reference, examined, job_config, same_name=same_name)
        found = Vetted(examined, found.warnings, reference, compared)
        print(f"\n{compared.current}\nagainst {compared.reference}")
        print(report.plain_table(compared.rows()))
        print(compared.sentence())
    with open_run("validate", dataset.name, job_config.experiment, job_config.run_name) as run:
        run.params("data", to_dict(config))
        run.dataset(dataset)
        vetting.log(found, run, console)
        run.describe(_description(dataset, found, parts, against))
    console.say(f"validate: logged as run {run.id}")
    if found.drift is not None and found.drift.verdict == SIGNIFICANT and job_config.on_drift == "refuse":
        raise vetting.refusal(found.drift, against, "the table above")


def _description(dataset: Dataset, found: Vetted, parts: Split, against: str) -> str:
    """The run as a short report in Markdown."""
    profile = found.found.profile
    verdict = "" if found.drift is None else f"; {found.drift.sentence().split(':')[0]}"
    lines = [f"### {dataset.name}: {profile.interactions:,} interactions{verdict}"]
    if found.drift is not None:
        lines += [
            f"**Drift** against {against}, {found.drift.reference}: {found.drift.sentence()}.",
            report.described_table(found.drift.rows()),
        ]
    if dataset.truth is not None:
        lines.append("**Synthetic data: made up, not real.**")
    lines += [f"**Note.** {note}" for note in dataset.notes]
    lines += [f"**Warning.** {warning}." for warning in found.warnings]
    lines += [
        report.described_table([["", dataset.name], *([what, value] for what, value in profile.rows())]),
        f"Split {parts.description}.",
        f"The figure is `{vetting.OVERVIEW}`, all values are in `{references.PROFILE}`. Hold later data against these: "
        f"`python -m experiments validate --against` with the id of this run.",
    ]
    return "\n\n".join(lines)
