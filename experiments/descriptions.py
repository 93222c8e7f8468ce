"""What the UI says of a run and of a trial: short reports in Markdown. Versions and models: `registry_texts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments import report, search_space, search_texts
from experiments.gate import Verdict
from experiments.judging import Results
from experiments.recipe import Prepared
from experiments.stages import ALL, Made
from experiments.tracking import Run

if TYPE_CHECKING:  # they import this module
    from experiments.publish import Published
    from experiments.registry import Version
    from experiments.tune import Search

Commands = Sequence[tuple[str, str]]  # what it does, and what is typed
WIDTH = 88  # of a command's line
SYNTHETIC = "**Synthetic data: made up, not real.**"


def of_model(
    run: Run,
    made: Made,
    data: Prepared,
    published: Published,
    commands: Commands,
    search: Search | None,
    verdict: Verdict | None,
) -> str:
    """Of a run that made a model: `main` and `train`."""
    parts = [f"### {headline(made, data, published.version, verdict)}", synthetic_warning(data)]
    if made.results is not None:
        parts.append(f"**Result.** {result_line(made.results)}")
    if verdict is not None:
        parts.append(f"**Gate.** {verdict_line(verdict)}")
    parts.append(f"**Trust.** {trust_line(data)}")
    if made.results is not None:
        parts += table_of(made.results, run)
    parts += [data_line(data), of_what(made)]
    if search is not None:
        parts.append(f"**Search.** {search_texts.line(search)}")
    if published.version is not None:
        parts.append(f"**Registered** as {_link(published.version)}.")
    settings = report.settings_text(
        search.best.params if search else search_space.values(made.selection.recipe.config)
    )
    parts += [
        f"**Settings.** {settings}; all of them in `recipe.json`.",
        source_line(run),
        "**Files.** `model_card.md` and `data_sheet.md` say what the model and the data are good for; `evaluation/` "
        "has the tables and every user's values, `figures/` the figures, `model.pth` the model itself.",
        shell(commands),
    ]
    return joined(parts)


def of_search(run: Run, search: Search, data: Prepared, lines: list[list[str]], commands: Commands) -> str:
    """Of a run of `tune`.  lines: a table of the trials"""
    value = search.best.value
    best = f"the best is trial {search.best.number + 1}" + (
        "" if value is None else f", validation NDCG@10 {value:.4f}"
    )
    return joined(
        [
            f"### {data.dataset.name}: {_trials(len(search.attempts))}, {best}",
            synthetic_warning(data),
            f"**Result.** {search_texts.line(search)} The best of several is flattered by chance; what it is "
            "worth on the test part, which no trial has seen, is said when it is trained.",
            f"**Trust.** {trust_line(data)}",
            report.described_table(lines),
            data_line(data),
            source_line(run),
            shell(commands),
        ]
    )


def of_evaluation(run: Run, what: str, results: Results, data: Prepared, commands: Commands) -> str:
    """Of a run of `evaluate`.  what: whose recipe was judged"""
    return joined(
        [
            f"### {data.dataset.name}: {found_line(results)}",
            synthetic_warning(data),
            f"{what}, trained on what comes before the test part.",
            f"**Result.** {result_line(results)}",
            f"**Trust.** {trust_line(data)}",
            *table_of(results, run),
            data_line(data),
            source_line(run),
            shell(commands),
        ]
    )


def headline(made: Made, data: Prepared, version: Version | None, verdict: Verdict | None = None) -> str:
    """The result in one line: the UI shows little more of a description until it is unfolded."""
    found = f"{data.dataset.name}: "
    found += "trained on everything, no test part" if made.results is None else found_line(made.results)
    if version is not None:
        found += f"; {version}"
    return f"{found}, gate {verdict.word}" if verdict else found


def found_line(results: Results) -> str:
    best = next(iter(results.gains))
    theirs = results.gains[best].reference_mean
    return f"NDCG@10 {report.cell(results.model.metrics['ndcg_at_10'])}, best baseline {best} {theirs:.4f}"


def result_line(results: Results) -> str:
    """What won, against what, by how much."""
    best, *others = results.gains.items()
    beaten = [name for name, gain in others if gain.absolute.low > 0]
    rest = ""
    if len(beaten) == len(others):
        too = ", too" if best[1].absolute.low > 0 else ""
        rest = f" It is surely better than {_listed(beaten)}{too}."
    elif others:
        left = [name for name, gain in others if not gain.absolute.low > 0]
        rest = f" Of the others, it is not surely better than {_listed(left)}."
    return (
        f"The model is {report.gain_text(best[1], f'{best[0]}, the best baseline')} "
        f"({best[1].users:,} users, compared one by one).{rest}"
    )


def verdict_line(verdict: Verdict) -> str:
    """Passed or refused, with what it was held against, in words."""
    said = "; ".join(f"{report.gain_text(duel.difference, duel.against)}" for duel in verdict.duels)
    first = "There was no champion yet. " if verdict.reason.startswith("There was no champion") else ""
    rule = f"{verdict.word.capitalize()} by the rule `{verdict.rule}`"
    if not said:
        return f"{rule}. {verdict.reason.rstrip('.')}."
    return f"{rule}. {first}It is {said}; needed was an interval {verdict.duels[0].needed}."


def trust_line(data: Prepared) -> str:
    kind = "Made-up data" if data.dataset.truth is not None else "Real data"
    caution = f" {data.trust.caution}." if data.trust.caution else ""
    return f"{kind}. {data.trust}.{caution}"


def of_what(made: Made) -> str:
    """What the figures are of, and what the final model has seen."""
    if made.results is None:
        return f"The final model is trained on {made.trained_on}."
    if made.trained_on == ALL:
        final = f"the final model is the same recipe refit on {ALL}"
    else:
        final = "the final model is that very model (refit=false)"
    return f"The figures are of the recipe trained on what comes before the test part; {final}."


def joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def shell(commands: Commands) -> str:
    """A block to paste from. Long lines are broken: one that does not fit makes the page wider than the window."""
    return "```\n" + "\n".join(f"# {what}\n{_broken(command)}" for what, command in commands) + "\n```"


def _broken(command: str) -> str:
    first, *flags = command.split(" --")
    lines = [first]
    for flag in flags:
        if len(f"{lines[-1]} --{flag}") > WIDTH:
            lines.append("   ")
        lines[-1] += f" --{flag}"
    return " \\\n".join(lines)


def table_of(results: Results, run: Run) -> list[str]:
    table = report.described_table(report.short_rows(results.all))
    if report.SUMMARY_FIGURE not in run.pictures:
        return [table, f"{report.INTERVALS} Baselines are tuned on the same validation part."]
    return [
        table,
        f"{report.INTERVALS} Those of the baselines, which are tuned on the same validation part:",
        f"![NDCG@10](get-artifact?run_uuid={run.id}&path={report.SUMMARY_FIGURE})",  # the UI's own address
    ]


def synthetic_warning(data: Prepared) -> str:
    return "" if data.dataset.truth is None else " ".join((SYNTHETIC, *data.dataset.notes))


def data_line(data: Prepared) -> str:
    rows = data.dataset.interactions
    return (
        f"**Data.** {len(rows):,} interactions ({data.dataset.source}), digest `{data.dataset.digest[:16]}`. "
        f"Split {data.split.description}."
    )


def source_line(run: Run) -> str:
    """Commit and machine."""
    commit = run.source.get("git.commit", "")
    if not commit:
        return ""
    dirty = ", with changes that are in no commit" if commit.endswith("-dirty") else ""
    return f"**Source.** Commit `{commit.removesuffix('-dirty')}`{dirty}; versions and machine in `environment.json`."


def _link(version: Version) -> str:
    return f"[{version.name} version {version.number}](#/models/{version.name}/versions/{version.number})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
