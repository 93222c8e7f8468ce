"""How a job ends: the table, the verdict and the next commands, on the terminal and as the run's description."""

from __future__ import annotations

from experiments import descriptions, report, search_texts
from experiments.figures import dashboard
from experiments.figures.album import Album
from experiments.flags import as_flags
from experiments.gate import Verdict
from experiments.jobs import JobConfig, promote_command
from experiments.next_commands import SEE, next_commands, store_prefix
from experiments.progress import Console
from experiments.publish import Published
from experiments.recipe import Prepared
from experiments.stages import Made
from experiments.tracking import Run
from experiments.tune import Search


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
    commands = next_commands(run, published, job, verdict, tested=made.results is not None)
    to_describe = [command for command in commands if command[0] != SEE]
    run.describe(descriptions.of_model(run, made, data, published, to_describe, search, verdict))
    if data.dataset.truth is not None:
        console.say("these figures are of synthetic data and say nothing about real users")
    print()
    if made.results is not None:
        print(f"{data.dataset.name}, {data.split.description}")
        print(report.plain_table(report.rows(made.results.all)))
        print(report.INTERVALS)
    else:
        print(f"{data.dataset.name}: split=none, so there is no test part and there are no test figures.")
    print(descriptions.of_what(made))
    if published.version is not None:
        print(f"Registered: {published.version}, trained on {made.trained_on}.")
    if verdict is not None:
        print(f"Gate ({verdict.rule}): {verdict.word}. {verdict.reason.rstrip('.')}.")
        if not verdict.passed and published.version is not None:
            promote = promote_command(published.version.name, published.version.number, job.alias)
            print(f"To give it the alias anyway: {store_prefix()}{promote} --force")
    print("\nNext:")
    width = max(len(what) for what, _ in commands)
    for what, command in commands:
        print(f"  {what.ljust(width)}  {command}")


def finish_search(run: Run, search: Search, data: Prepared) -> None:
    """The end of `tune`."""
    train = f"{store_prefix()}python -m experiments train {as_flags(search.best.config)}"
    lines = search_texts.table(search)
    commands = [("train the best", train)]
    run.describe(descriptions.of_search(run, search, data, lines, commands))
    print()
    print(report.plain_table(lines))
    print(search_texts.line(search))
    print(f"\nNext:\n  train it  {train}")
