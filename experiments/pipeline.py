"""The main job: from data to a gated, registered model.

    mlflow run . --env-manager local
    mlflow run . --env-manager local -P dataset=ml-latest-small -P data_dir=PATH -P trials=10
    python -m experiments main --dataset synthetic --trials 3

load -> validate -> split -> tune -> train the best -> evaluate beside the baselines -> log -> refit on everything
-> register -> load back -> gate -> alias
"""

from __future__ import annotations

from experiments import objectives, promote, publish, report, since, study_config, summary, tune, vetting
from experiments.figures import dashboard, study
from experiments.figures.album import Album
from experiments.gate import Verdict
from experiments.jobs import JobConfig
from experiments.judging import per_user_frame
from experiments.progress import Console
from experiments.publish import Published
from experiments.recipe import Prepared, on_data
from experiments.registry import Version, check_may_write
from experiments.stages import Made, make, start, timed
from experiments.study_config import StudyConfig
from experiments.tracking import Run, open_run
from experiments.tune import Search
from widedeep.config import Config
from widedeep.errors import ConfigError


def job(config: Config, job_config: JobConfig, settings: StudyConfig, console: Console) -> None:
    """The entry point `main`."""
    if config.data.split == "none":
        raise ConfigError(
            "split=none leaves nothing to judge a model by, which is what the main job does. "
            "Use `python -m experiments train --split none`."
        )
    tune.check(config, settings)
    with open_run("main", config.data.dataset, job_config.experiment, job_config.run_name) as run:
        check_may_write(job_config.register)
        data = start(config, job_config, run, console)
        key = since.Key.of(config, data, job_config, settings)
        key.log(run)
        if since.nothing_new(key, data, job_config, run, console):
            return
        vetting.vet(data, job_config, run, console)
        found = search(on_data(config, data.config), data, job_config, settings, run, console)
        made = make(found.selection, data, job_config, run, console)
        published = timed(
            run,
            "register",
            lambda: publish.publish(made, data, job_config, run, console, "not judged yet", found),
        )
        key.mark(published.version)
        verdict = None
        if published.version is not None and job_config.alias:
            verdict = timed(
                run, "gate", lambda: through_the_gate(made, published, data, job_config, run, console)
            )
            dashboard.verdict(verdict, data, Album(run, console))
        summary.finish(run, made, data, published, job_config, console, search=found, verdict=verdict)


def tune_job(config: Config, job_config: JobConfig, settings: StudyConfig, console: Console) -> None:
    """The entry point `tune`: the search alone, which never looks at the test part."""
    tune.check(config, settings)
    with open_run("tune", config.data.dataset, job_config.experiment, job_config.run_name) as run:
        data = start(config, job_config, run, console)
        found = search(on_data(config, data.config), data, job_config, settings, run, console)
        run.json(found.selection.recipe.to_dict() | {"comparison_key": data.key}, "recipe.json")
        dashboard.times(run, data, Album(run, console))
        summary.finish_search(run, found, data)


def search(
    config: Config,
    data: Prepared,
    job_config: JobConfig,
    settings: StudyConfig,
    run: Run,
    console: Console,
) -> Search:
    """Tune, and log what the search as a whole has found."""
    run.params("study", study_config.to_dict(settings))
    run.json(study_config.to_dict(settings), "study.json")
    found = timed(run, "tune", lambda: tune.search(config, data, job_config, settings, run, console))
    run.params("best", {"trial": found.best.number + 1, **found.best.params})
    for row in found.selection.curves:
        values = {f"curves/{row['head']}_{key}": row[key] for key in row if key not in ("head", "epoch")}
        run.metrics(values, int(row["epoch"]))
    names = [objectives.LABELS[name] for name in found.objectives]
    study.log(found.study, Album(run, console), f"Search on {data.dataset.name}", names)
    console.say(f"tune: best is trial {found.best.number + 1}: {report.settings_text(found.best.params)}")
    return found


def through_the_gate(
    made: Made, published: Published, data: Prepared, job_config: JobConfig, run: Run, console: Console
) -> Verdict:
    """Judge the registered version; move the alias or say why not."""
    version = published.version
    assert version is not None
    assert made.results is not None
    results = per_user_frame(made.results.all)

    def judged(champion: Version | None) -> Verdict:
        verdict = promote.judge(results, champion, data, made.selection.recipe.config, job_config, console)
        run.metrics(verdict.metrics())
        run.json(verdict.to_dict(), "evaluation/gate.json")
        return verdict

    verdict = promote.earn(version, job_config.alias, judged, console)
    run.tags({"gate": verdict.word, "gate.rule": verdict.rule})
    return verdict
