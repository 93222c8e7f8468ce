"""Train a run again and say whether it comes out the same.

    python -m experiments reproduce RUN_ID
    python -m experiments reproduce RUN_ID --data-dir PATH
    mlflow run . -e reproduce -P run_id=RUN_ID

It takes the recipe, the circumstances and the figures from the run, and the data from where they are now. Nothing
is checked out or installed: what differs is said. The recipe is selected on the validation part again, trained
again on what comes before the test part, and evaluated. Where nothing differs and a CPU computes, every figure, every
user's NDCG@10 and every weight have to be equal, bit for bit; elsewhere each figure has to lie within the 95% interval
of the run's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from experiments import circumstances, original, recipe, report
from experiments.circumstances import SETTINGS, Check
from experiments.flags import config_from
from experiments.jobs import JobConfig
from experiments.judging import Bench, per_user_frame
from experiments.original import REPORT, Original
from experiments.progress import Console
from experiments.promote import PER_USER, RECIPE
from experiments.recipe import Prepared, Recipe, Selection
from experiments.sameness import Sameness, compare
from experiments.stages import start, timed
from experiments.tracking import Run, open_run
from experiments.weights import WEIGHTS_TAG, weights_digest
from widedeep.config import Config
from widedeep.errors import DataError, ReproductionError
from widedeep.recommender import Recommender
from widedeep.report import Report

DATA_PLACES = ("data_dir", "ratings", "item_table", "user_table")  # what may be elsewhere now
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"


@dataclass(frozen=True)
class Verdict:
    """What came of it.  word: REPRODUCED or NOT_REPRODUCED"""

    word: str
    reason: str

    def __str__(self) -> str:
        return f"{self.word[0].upper()}{self.word[1:]}: {self.reason}"


def job(given: Mapping[str, str], job_config: JobConfig, *, select: bool, console: Console) -> None:
    """The entry point `reproduce`.

    given   run_id; where the data are now, by field of DataConfig; device, without which it is the run's if it is here
    select  choose on the validation part again; else what the run chose is taken as it is
    Raises  ReproductionError: the run cannot be trained again, or comes out otherwise;  DataError: other data
    """
    run_id = given["run_id"]
    then = original.load(run_id)
    places = {name: given[name] for name in DATA_PLACES if given.get(name)}
    config = _here(then, places, given.get("device") or circumstances.usable_device(then))
    with (
        circumstances.threads_of(then),
        open_run("reproduce", run_id[:8], job_config.experiment, job_config.run_name) as run,
    ):
        run.tags({"reproduces": run_id})
        data = _load(then, config, job_config, run, console)
        config = recipe.on_data(config, data.config)
        checks = circumstances.look(then, config, data)
        print(report.plain_table(_rows(checks)))
        run.table(_frame(_rows(checks)), "reproduction/circumstances_table.json")
        _same_recipe(then, checks)
        _same_data(then, data)
        selection, found, weights = _train(then, config, data, run, console, select=select)
        sameness = _compare(then, selection if select else None, found, weights)
        exact = circumstances.equality_expected(checks, str(then.tags.get("device")))
        verdict = judge(sameness, exact=exact)
        _log(run, then, checks, sameness, verdict)
        print(f"\n{report.plain_table(sameness.rows())}\n{report.INTERVALS}")
        print("\n".join([*sameness.lines(), str(verdict)]))
    if verdict.word != REPRODUCED:
        raise ReproductionError(f"{then} is {verdict.word}: {verdict.reason}")


def judge(sameness: Sameness, *, exact: bool) -> Verdict:
    """exact: the same machine, versions, source, settings and data, so that equality is asked for"""
    if sameness.equal:
        return Verdict(REPRODUCED, "everything is equal, bit for bit.")
    largest = sameness.largest
    apart = f"the largest difference is {largest.difference:+.2g}, of {report.LABELS[largest.name]}"
    if sameness.outside:
        names = ", ".join(report.LABELS[figure.name] for figure in sameness.outside)
        return Verdict(NOT_REPRODUCED, f"outside of the 95% interval: {names}; {apart}.")
    unequal = f"not equal: {', '.join(sameness.unequal)}" + (f"; {apart}" if largest.difference else "")
    if exact:
        return Verdict(
            NOT_REPRODUCED, f"machine, versions, source, settings and data are the same, and yet {unequal}."
        )
    fits = "within the 95% intervals" if largest.difference else "every test figure is equal"
    return Verdict(
        REPRODUCED, f"{fits}; no more can be expected where something differs or a GPU computes ({unequal})."
    )


def _here(then: Original, places: dict[str, str], device: str) -> Config:
    """The run's settings with what belongs to a machine from this one."""
    made = config_from(places, then.recipe.config)
    return dataclasses.replace(
        made, train=dataclasses.replace(made.train, device=device, checkpoint="", resume=False)
    )


def _load(then: Original, config: Config, job_config: JobConfig, run: Run, console: Console) -> Prepared:
    try:
        return start(config, job_config, run, console)
    except DataError as error:
        raise DataError(
            f"The data of {then} could not be loaded again, so nothing was trained: {error}\nName where they are "
            "now with --data-dir, or --ratings, --item-table and --user-table."
        ) from error


def _same_recipe(then: Original, checks: list[Check]) -> None:
    """Raises  ReproductionError"""
    for check in checks:
        if check.what == SETTINGS and check.same is False:
            raise ReproductionError(
                f"{then} is {NOT_REPRODUCED}: its recipe.json was changed after it ({check.then}; {check.now}), so "
                "nothing was trained. Restore that file."
            )


def _same_data(then: Original, data: Prepared) -> None:
    """Raises  DataError"""
    digest = then.tags.get("data_digest", "unknown")
    if data.dataset.digest == digest:
        return
    rows = then.parameters.get("rows.all", "unknown")
    raise DataError(
        f"The data at hand ({data.dataset.name} of {data.dataset.source}: {len(data.dataset.interactions)} "
        f"interactions, digest {data.dataset.digest[:12]}) are not those of {then} ({rows} interactions, digest "
        f"{digest[:12]}), so nothing was trained. Name those with --data-dir or --ratings; new data are for `main`."
    )


def _train(
    then: Original, config: Config, data: Prepared, run: Run, console: Console, *, select: bool
) -> tuple[Selection, Report, str]:
    """The selection, the evaluated model's report, and the digest of its weights."""
    with console.training("train") as shown:
        if select:
            selection = timed(run, "select", lambda: recipe.select(config, data, shown))
            console.say("reproduce: the validation part has chosen again")
        else:
            selection = Selection(Recipe(config, then.recipe.chosen))
        model: Recommender = timed(
            run, "train", lambda: recipe.fit_before_test(selection.recipe, data, shown)
        )
    console.say(f"reproduce: trained on the {len(data.before_test):,} interactions before the test part")
    found = timed(run, "evaluate", lambda: Bench(data, 0, console).model(model))
    weights = weights_digest(model)
    run.tags({WEIGHTS_TAG: weights})
    run.json(selection.recipe.to_dict() | {"comparison_key": data.key}, RECIPE)
    run.json([found.to_dict()], REPORT)
    run.parquet(per_user_frame([found]), PER_USER)
    run.metrics({f"validation/{name}": value for name, value in selection.validation.items()})
    run.metrics({name: value.value for name, value in found.metrics.items()})
    return selection, found, weights


def _compare(then: Original, selection: Selection | None, found: Report, weights: str) -> Sameness:
    others = {}
    if selection is not None:
        others["what validation chose"] = selection.recipe.chosen == then.recipe.chosen
    if WEIGHTS_TAG in then.tags:
        others["weights"] = then.tags[WEIGHTS_TAG] == weights
    validation = {} if selection is None or not then.validation else selection.validation
    return compare(then.report, found, (then.validation, validation), others)


def _log(run: Run, then: Original, checks: list[Check], sameness: Sameness, verdict: Verdict) -> None:
    run.tags({"verdict": verdict.word, "verdict.reason": verdict.reason})
    run.metrics({"reproduction/largest_difference": abs(sameness.largest.difference)})
    run.table(_frame(sameness.rows()), "reproduction/figures_table.json")
    run.json(
        {
            "reproduces": then.run_id,
            "verdict": verdict.word,
            "reason": verdict.reason,
            "circumstances": [dataclasses.asdict(check) for check in checks],
            **sameness.to_dict(),
        },
        "reproduction/reproduction.json",
    )
    link = f"[{then}](#/experiments/{then.experiment_id}/runs/{then.run_id})"
    run.describe(
        "\n\n".join(
            [
                f"### {verdict}",
                f"{link}, trained again.",
                report.described_table(sameness.rows()),
                *sameness.lines(),
                report.described_table(_rows(checks)),
            ]
        )
    )


def _rows(checks: Sequence[Check]) -> list[list[str]]:
    return [["", "then", "now", ""], *([check.what, check.then, check.now, check.word] for check in checks)]


def _frame(rows: Sequence[Sequence[str]]) -> pd.DataFrame:
    """For a table of the UI, whose columns have names."""
    header, *body = rows
    names = [name or ("what" if not place else "found") for place, name in enumerate(header)]
    return pd.DataFrame(body, columns=names)
