"""Hold a version against the champion, and move the alias if it has earned it; or move it back.

    python -m experiments promote --version 3
    python -m experiments promote --version 3 --force
    python -m experiments promote --rollback
    mlflow run . -e promote -P version=3

What is compared is the recipe of the version and that of the champion, on one split: the version's data are
loaded again if the two were not evaluated on the same split before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable

import pandas as pd

from experiments import aliases, gate, publish, recipe, registry, tracking
from experiments.gate import Verdict
from experiments.jobs import JobConfig, promote_command
from experiments.judging import Bench, per_user_of
from experiments.progress import Console
from experiments.recipe import Prepared, Recipe
from experiments.registry import Version
from experiments.store import check_store
from widedeep.config import Config
from widedeep.errors import ChampionMovedError, GateError, TrackingError, WideDeepError
from widedeep.recommender import Recommender

OURS = Recommender.name
ROUNDS = 10  # judgements of one version, where others take the alias meanwhile
PER_USER = "evaluation/per_user.parquet"
RECIPE = "recipe.json"


def stored_results(version: Version) -> pd.DataFrame | None:
    """Every model's values of every user, from the run that made the version; None where there are none."""
    if not version.run_id or "ndcg_at_10" not in version.tags:
        return None
    try:
        return pd.read_parquet(tracking.artifact(version.run_id, PER_USER))
    except (TrackingError, OSError, ValueError):
        return None


def champion_results(champion: Version, data: Prepared, current: Config, console: Console) -> pd.Series:
    """The champion's NDCG@10 by user on the split of `data`.

    From its own run where that had the same data and split; else its recipe is trained again, because what is
    registered has been refit on everything and has seen the test part.
    current  where the device and precision come from
    """
    if champion.tags.get("comparison_key") == data.key:
        stored = stored_results(champion)
        if stored is not None:
            console.say(f"gate: the results of {champion} on this split come from its run")
            return per_user_of(stored, OURS)
    console.say(f"gate: {champion} was not evaluated on this split, so its recipe is trained on it")
    return _trained_again(champion, data, current, console)


def recipe_of(version: Version) -> Recipe:
    """From the run that made the version; where that is gone, from the bundle.

    Raises  WideDeepError: neither is there or fits this widedeep
    """
    if version.run_id:
        with contextlib.suppress(TrackingError, OSError, ValueError, KeyError, TypeError):
            return Recipe.from_dict(json.loads(tracking.artifact(version.run_id, RECIPE).read_text()))
    known = registry.load(version.uri, device="cpu")
    return Recipe(known.config, known.chosen)


def _trained_again(champion: Version, data: Prepared, current: Config, console: Console) -> pd.Series:
    known = recipe_of(champion)
    train = dataclasses.replace(
        known.config.train,
        device=current.train.device,
        precision=current.train.precision,
        checkpoint="",
        resume=False,
    )
    config = dataclasses.replace(known.config, data=data.config, train=train)
    with console.training(f"{champion} again") as shown:
        if champion.tags.get("comparison_key") == data.key:
            chosen = Recipe(config, known.chosen)
        else:
            chosen = recipe.select(config, data, shown).recipe
        model = recipe.fit(chosen, data, data.before_test, "evaluate", shown)
    return per_user_of(Bench(data, 0, console).model(model).per_user.reset_index().assign(model=OURS), OURS)


def judge(
    results: pd.DataFrame,
    champion: Version | None,
    data: Prepared,
    config: Config,
    job: JobConfig,
    console: Console,
) -> Verdict:
    """The gate's verdict on a recipe.  results: its own and the baselines' values by user"""
    rule = gate.resolve(
        job.gate,
        same_data=champion is not None and champion.tags.get("data_digest") == data.dataset.digest,
    )
    models = [name for name in results["model"].unique() if name not in (OURS, "best reachable")]
    reference = None
    if champion is not None:
        try:
            name = f"the recipe of version {champion.number}"
            reference = (name, champion_results(champion, data, config, console))
        except WideDeepError as error:
            return Verdict(False, rule, f"It could not be compared with {champion}: {error}")
    return gate.judge(
        per_user_of(results, OURS),
        reference,
        {name: per_user_of(results, name) for name in models},
        rule="better" if champion is None and rule == "not-worse" else rule,
        samples=job.gate_samples,
    )


def earn(
    version: Version, alias: str, judged: Callable[[Version | None], Verdict], console: Console
) -> Verdict:
    """Judge a version, and give it the alias if it earned it. Where another took the alias while it was judged, it is
    judged again, against that one.

    judged   the verdict against a champion, or against none
    Returns  the last verdict; refused, too, where the alias moved again in each of ROUNDS judgements
    """
    for _ in range(ROUNDS):
        champion = aliases.aliased(version.name, alias)
        if champion is not None and champion.number == version.number:
            return Verdict(True, "none", f"{version} was given the alias {alias} by another")
        verdict = judged(champion)
        publish.record(version, verdict.word, verdict.rule, verdict.reason)
        console.say(f"gate: {verdict.word} ({verdict.rule}). {verdict.reason}")
        if not verdict.passed:
            return verdict
        try:
            aliases.move_alias_from(
                champion, version, alias, f"passed the gate ({verdict.rule})", console.say
            )
        except ChampionMovedError as moved:
            console.say(f"gate: {moved}, so it is judged again")
            continue
        console.say(f"alias: {version.name}@{alias} is now version {version.number}")
        return verdict
    reason = (
        f"It passed {ROUNDS} times, and each time the alias {alias} had moved meanwhile. "
        f"Judge it again: {promote_command(version.name, version.number, alias)}"
    )
    verdict = dataclasses.replace(verdict, passed=False, reason=reason)
    publish.record(version, verdict.word, verdict.rule, verdict.reason)
    return verdict


def job(number: int, job_config: JobConfig, current: Config, *, force: bool, console: Console) -> str:
    """The entry point `promote`; says what became of it.

    current  settings of this machine: device, precision, where the data are
    Raises   GateError: the version did not earn the alias;  RegistryError, BundleError: it does not answer
    """
    check_store()
    name, alias = job_config.register, job_config.alias
    version = registry.version(name, number)
    champion = aliases.aliased(name, alias)
    if champion is not None and champion.number == number:
        return f"{version} has the alias {alias} already."
    registry.check_answers(version)
    if force:
        aliases.move_alias(version, alias, "forced", console.say)
        publish.record(version, "forced", "none", f"The alias {alias} was given without asking")
        return f"{name}@{alias} is now version {number}, by force: the gate was not asked."
    judged = _judge_of(version, job_config, current, console)
    verdict = earn(version, alias, judged, console)
    if not verdict.passed:
        raise GateError(
            f"{version} did not earn the alias {alias} (gate {verdict.rule}): {verdict.reason}.\n"
            f"To give it anyway: {promote_command(name, number, alias)} --force"
        )
    return f"{name}@{alias} is now version {number}. {verdict.reason}."


def _judge_of(
    version: Version, job_config: JobConfig, current: Config, console: Console
) -> Callable[[Version | None], Verdict]:
    """What judges a registered version, on its data.  Raises  GateError: there is nothing to judge it by"""
    results = stored_results(version)
    if results is None:
        raise GateError(
            f"{version} was registered without an evaluation (split=none, or its run is gone), so there is nothing "
            "to judge it by. To give it the alias anyway: "
            f"{promote_command(version.name, version.number, job_config.alias)} --force"
        )
    config = dataclasses.replace(recipe_of(version).config, train=current.train)
    data_config = config.data
    if current.data.data_dir or current.data.ratings:
        data_config = dataclasses.replace(
            data_config, data_dir=current.data.data_dir, ratings=current.data.ratings or data_config.ratings
        )
    try:
        data = recipe.prepare(data_config, console)
    except WideDeepError as error:
        raise GateError(f"The data of {version} could not be loaded again to judge it: {error}") from error
    if data.dataset.digest != version.tags.get("data_digest"):
        raise GateError(
            f"The data at hand ({data.dataset.name}, digest {data.dataset.digest[:12]}) are not what {version} was "
            f"evaluated on (digest {version.tags.get('data_digest', 'unknown')[:12]}). Name theirs with --data-dir, "
            "or run the main job on the new data."
        )
    return lambda champion: judge(results, champion, data, config, job_config, console)


def rollback(job_config: JobConfig) -> str:
    """The entry point `promote --rollback`.

    Raises  RegistryError: nothing to move back to
    """
    check_store()
    before, now = aliases.move_back(job_config.register, job_config.alias)
    return f"{before.name}@{job_config.alias} is version {before.number} again; version {now.number} lost it."
