"""How a job ends: the table, the verdict and the next commands, on the terminal and as the run's description."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import mlflow

from experiments import aliases, registry, report, search_space, tracking
from experiments.figures import dashboard
from experiments.figures.album import Album
from experiments.flags import as_flags
from experiments.gate import Verdict
from experiments.jobs import JobConfig, promote_command
from experiments.objectives import LABELS
from experiments.progress import Console
from experiments.publish import Published, someone
from experiments.recipe import Prepared
from experiments.stages import ALL, Made
from experiments.tracking import Run
from experiments.trials import GIVEN
from experiments.tune import Search
from widedeep.errors import WideDeepError
from widedeep.store_trouble import masked, without_user

ADDRESS = "127.0.0.1:50051"
TRAINING_VIEW = "workflowType=machine_learning"  # otherwise the UI opens in its view for language models


def finish(
    run: Run,
    made: Made,
    data: Prepared,
    published: Published,
    job: JobConfig,
    console: Console,
    *,
    search: Search | None = None,
    verdict: Verdict | None = None,
) -> None:
    """Write the run's description, and print the result to standard output."""
    dashboard.times(run, data, Album(run, console))
    commands = next_commands(run, published, job, verdict)
    run.describe(_description(made, data, published, commands, search, verdict))
    if data.dataset.truth is not None:
        console.say("these figures are of synthetic data and say nothing about real users")
    print()
    if made.results is not None:
        print(f"{data.dataset.name}, {data.split.description}")
        print(report.plain_table(report.rows(made.results.all)))
        print(report.INTERVALS)
    else:
        print(f"{data.dataset.name}: split=none, so there is no test part and there are no test figures.")
    print(_of_what(made))
    if published.version is not None:
        print(f"Registered: {published.version}, trained on {made.trained_on}.")
    if verdict is not None:
        print(f"Gate ({verdict.rule}): {verdict.word}. {verdict.reason.rstrip('.')}.")
        if not verdict.passed and published.version is not None:
            promote = promote_command(published.version.name, published.version.number, job.alias)
            print(f"To give it the alias anyway: {_store_prefix()}{promote} --force")
    print("\nNext:")
    width = max(len(what) for what, _ in commands)
    for what, command in commands:
        print(f"  {what.ljust(width)}  {command}")


def finish_search(run: Run, search: Search, data: Prepared) -> None:
    """The end of `tune`."""
    command = f"{_store_prefix()}python -m experiments train {as_flags(search.best.config)}"
    lines = search_table(search)
    run.describe(
        f"Search over {len(search.attempts)} settings on **{data.dataset.name}**, judged on the validation part.\n\n"
        f"{report.described_table(lines)}\n\n{_search_line(search)}\n\nTrain the best:\n\n```\n{command}\n```"
    )
    print()
    print(report.plain_table(lines))
    print(_search_line(search))
    print(f"\nNext:\n  train it  {command}")


def search_table(search: Search) -> list[list[str]]:
    """A row for each trial; with several objectives the trials that none surpasses in all of them are marked."""
    names = list(dict.fromkeys(name for attempt in search.attempts for name in attempt.params))
    others = [LABELS[name] for name in search.objectives[1:]]
    lines = [["trial", f"validation {LABELS['ndcg']}", *others, "state", *names]]
    for attempt in search.attempts:
        state = attempt.state.lower()
        cells = [f"{value:.4g}" for value in attempt.values[1:]]
        lines.append(
            [
                str(attempt.number + 1),
                "–" if attempt.value is None else f"{attempt.value:.4f}",
                *(cells or ["–"] * len(others)),
                f"{state}, Pareto" if attempt.number in search.pareto else state,
                *(report.setting_text(attempt.params.get(name, "–")) for name in names),
            ]
        )
    return lines


def next_commands(
    run: Run, published: Published, job: JobConfig, verdict: Verdict | None
) -> list[tuple[str, str]]:
    """(what, command) for the UI, the server and the client; they work as they stand, from any folder."""
    store = mlflow.get_tracking_uri()
    named = _store_word()
    page = f"#/experiments/{run.experiment_id}/runs/{run.id}?{TRAINING_VIEW}"
    if store.startswith("http"):
        ui = f"open {shlex.quote(f'{without_user(store)}/{page}')}"
    else:
        where = "" if _is_default_store() else f" --backend-store-uri {named}"
        ui = f"mlflow ui{where}    # then open http://127.0.0.1:5000/{page}"
    model, user = _to_serve(run, published, job, verdict)
    registered = model.startswith("models:") and not _is_default_store()
    tracking_uri = f" --tracking-uri {named}" if registered else ""
    host, port = ADDRESS.split(":")
    return [
        ("see it", ui),
        (
            "serve it",
            f"python -m server --model {shlex.quote(model)} --host {host} --port {port}{tracking_uri}",
        ),
        (
            "ask it",
            f"python -m server.client recommend --target {ADDRESS} --user-id {shlex.quote(str(user))} --k 10",
        ),
    ]


def _to_serve(run: Run, published: Published, job: JobConfig, verdict: Verdict | None) -> tuple[str, Any]:
    """What to serve, and a user that it knows: the alias where it was earned, or else who has it."""
    version, user = published.version, published.user
    if version is None:
        return _bundle_of(run), user
    if not job.alias:
        return version.uri, user
    if verdict is None or verdict.passed:
        return f"models:/{version.name}@{job.alias}", user
    champion = aliases.aliased(version.name, job.alias)
    if champion is None:
        return version.uri, user
    try:
        return f"models:/{version.name}@{job.alias}", someone(registry.load(champion.uri, device="cpu"))
    except WideDeepError:
        return version.uri, user


def _bundle_of(run: Run) -> str:
    """The path of the run's bundle; where its files are elsewhere, that of a copy."""
    folder = run.client.get_run(run.id).info.artifact_uri
    path = Path(folder.removeprefix("file://")) / registry.BUNDLE
    return str(path if path.is_file() else tracking.artifact(run.id, registry.BUNDLE))


def _headline(made: Made, data: Prepared, published: Published, verdict: Verdict | None) -> str:
    """The result in one line: the UI shows little more of a description until it is unfolded."""
    found = f"{data.dataset.name}: "
    if made.results is None:
        found += "trained on everything, no test part"
    else:
        best = max(made.results.baselines, key=lambda other: other.metrics["ndcg_at_10"].value)
        ours, theirs = made.results.model.metrics["ndcg_at_10"], best.metrics["ndcg_at_10"]
        found += f"NDCG@10 {report.cell(ours)}, best baseline {best.model} {theirs.value:.4f}"
    if published.version is not None:
        found += f"; {published.version}"
    return f"{found}, gate {verdict.word}" if verdict else found


def _is_default_store() -> bool:
    """The store that MLflow takes by itself in this folder."""
    store = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    return Path(store).absolute() == Path("mlflow.db").absolute()


def _store_word() -> str:
    """The store's address as a word of a command; where a password is in it, the variable that it came from."""
    store = mlflow.get_tracking_uri()
    return shlex.quote(store) if masked(store) == store else '"$MLFLOW_TRACKING_URI"'


def _store_prefix() -> str:
    word = _store_word()
    return "" if _is_default_store() or word.startswith('"$') else f"MLFLOW_TRACKING_URI={word} "


def _of_what(made: Made) -> str:
    """What the figures are of, and what the final model has seen."""
    if made.results is None:
        return f"The final model is trained on {made.trained_on}."
    if made.trained_on == ALL:
        final = f"the final model is the same recipe refit on {ALL}"
    else:
        final = "the final model is that very model (refit=false)"
    return f"The figures are of the recipe trained on what comes before the test part; {final}."


def _search_line(search: Search) -> str:
    gain = search.gain
    best = search.best.number + 1
    if len(search.attempts) == 1:
        return "There was one trial, the settings as given."
    if len(search.objectives) > 1:
        several = sorted(number + 1 for number in search.pareto)
        return (
            f"Trial {best} was the best by {LABELS['ndcg']}, by which a model is registered. None surpasses in "
            f"{' and '.join(LABELS[name] for name in search.objectives)} at once: trials {_numbers(several)}."
        )
    if search.best.origin == GIVEN:
        return f"None of the {len(search.attempts)} trials was better than the settings as given."
    if gain is None:
        return f"Trial {best} was the best."
    return f"Trial {best} was the best: validation NDCG@10 {gain:+.4f} against the settings as given."


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _description(
    made: Made,
    data: Prepared,
    published: Published,
    commands: list[tuple[str, str]],
    search: Search | None,
    verdict: Verdict | None,
) -> str:
    """The run as a short report in Markdown."""
    rows = data.dataset.interactions
    parts = [f"### {_headline(made, data, published, verdict)}"]
    if data.dataset.truth is not None:
        parts.append(" ".join(("**Synthetic data: made up, not real.**", *data.dataset.notes)))
    if made.results is not None:
        parts += [
            report.described_table(report.rows(made.results.all)),
            f"{report.INTERVALS} Baselines are tuned on the same validation part.",
        ]
    parts.append(
        f"**Data.** {len(rows):,} interactions ({data.dataset.source}), digest `{data.dataset.digest[:16]}`. "
        f"Split {data.split.description}."
    )
    parts.append(_of_what(made))
    if search is not None:
        parts.append(f"**Search.** {_search_line(search)}")
    if published.version is not None:
        name, number = published.version.name, published.version.number
        said = (
            f"Gate ({verdict.rule}): {verdict.word}. {verdict.reason}."
            if verdict
            else "The gate was not asked."
        )
        parts.append(
            f"**Registered** as [{name} version {number}](#/models/{name}/versions/{number}). {said}"
        )
    settings = search.best.params if search else search_space.values(made.selection.recipe.config)
    parts += [
        f"**Settings.** {report.settings_text(settings)}; all of them in `recipe.json`.",
        "**Files.** `evaluation/` has the tables and every user's values, `figures/` the figures, `model.pth` the "
        "model itself.",
        "```\n" + "\n".join(command for _, command in commands[1:]) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part)
