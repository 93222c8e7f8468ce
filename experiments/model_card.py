"""The card of a trained model: what it is for, how good it is and for whom, and what it is not.

Source  Mitchell et al. 2019, Model Cards for Model Reporting, arXiv 1810.03993: its sections
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from experiments import data_sheet, descriptions, environment, exposure, report, search_texts
from experiments.exposure import Exposure
from experiments.flags import as_flags
from experiments.judging import Results
from experiments.next_commands import again
from experiments.recipe import Prepared
from experiments.stages import Made
from experiments.tracking import Run
from widedeep.device import resolve_device
from widedeep.report import LIKE_METRICS, RANKING_METRICS, Report

if TYPE_CHECKING:  # it imports descriptions, too
    from experiments.tune import Search

FILE = "model_card.md"
SHOWN = (RANKING_METRICS[:5], RANKING_METRICS[5:], LIKE_METRICS)  # low tables: the UI cuts higher ones off
SLICED = (
    ("history", "ndcg_at_10", "by the length of a user's history", "users"),
    ("popularity", "recall_at_20", "by the popularity of the items", "likes"),
)


def write(made: Made, data: Prepared, run: Run, size: int, search: Search | None) -> str:
    """As Markdown.  size: of the bundle, in bytes"""
    found = exposure.look(made.final)
    sections = [
        f"# Model card: Wide & Deep on {data.dataset.name}",
        descriptions.SYNTHETIC if data.dataset.truth is not None else "",
        f"## The model\n\n{_details(made, data, run, size)}",
        f"## What it is for, and what not\n\n{_use(made, data)}",
        f"## How good it is\n\n{_quality(made, data)}",
        f"## Newcomers and new items\n\n{_cold(made, data)}",
        f"## What is popular, and what is not\n\n{_popularity(made, found)}",
        f"## The data\n\n{_data(data)}",
        f"## How it was trained\n\n{_training(made, run, search)}",
        f"## Limits\n\n{_limits(made, data)}",
        *(
            f"## Make it again\n\n```\n{command}\n```"
            for _, command in again(run, tested=made.results is not None)
        ),
    ]
    return descriptions.joined(sections) + "\n"


def _details(made: Made, data: Prepared, run: Run, size: int) -> str:
    facts = made.final.describe()
    commit = run.source.get("git.commit", "")
    lines = [
        f"- Wide & Deep (Cheng et al. 2016) in PyTorch with two heads, one that ranks items by a user's history and "
        f"one that gives the probability of a like; {facts['parameters']:,} parameters, {size / 2**20:.1f} MiB",
        f"- knows {facts['users']:,} users and {facts['items']:,} items; trained on {made.trained_on} of "
        f"{data.dataset.name}, {facts['interactions']:,} of them",
        f"- made on {facts['created'][:10]} by run `{run.id}`" + (f", commit `{commit}`" if commit else ""),
        "- what the registry says of it (version, verdict of the gate, alias) is written there, not here",
    ]
    return "\n".join(lines)


def _use(made: Made, data: Prepared) -> str:
    config = data.config
    listed = made.final.processor.item_count - 1 - made.final.processor.warm_count
    rated = data.dataset.interactions.rating is not None
    probability = (
        f"The probability is that of a rating of {config.like_threshold:g} or more, given that the user rates the "
        "item. Who rates an item has chosen it, so for an item at random it is too high."
        if rated
        else "There are no ratings: the probability tells items that a user took from items drawn at random, and is no "
        "chance of a purchase or a click."
    )
    lines = [
        f"- For: ranking the {made.final.processor.warm_count:,} items for a user of the data, or for somebody new by "
        "what they did (a history in the request).",
        f"- {probability}",
        "- Not for: comparing the ranking scores of two users. They are scaled within one ranking.",
    ]
    if listed:
        lines.append(
            f"- Not for, unless asked to: the {listed:,} listed items without an interaction. They are left out of "
            "rankings; asked for by `include_cold_items`, each gets the mean score of its likes in genres and year."
        )
    return "\n".join(lines)


def _quality(made: Made, data: Prepared) -> str:
    results = made.results
    if results is None:
        return (
            "Not known: with split=none there was no test part. On the validation part, by which it was chosen and "
            f"which therefore flatters: {_values(made.selection.validation) or 'nothing was measured'}."
        )
    baselines = "".join(f"\n- {report.gain_text(gain, name)}" for name, gain in results.gains.items())
    tables = "\n\n".join(report.markdown_table(report.turned(results.all, names)) for names in SHOWN)
    slices = "".join(
        f"\n\n{report.LABELS[metric]} {title}:\n\n{report.markdown_table(table)}"
        for kind, metric, title, unit in SLICED
        if len(table := _slices([results.model, *results.baselines], kind, metric, unit)) > 1
    )
    return (
        f"{descriptions.of_what(made)} Test part: {results.model.users:,} users with a like in it, "
        f"{results.model.rows:,} rows; every item that is not in a user's history is ranked.\n\n"
        f"{tables}\n\n{report.INTERVALS}\n\n"
        f"Against the baselines, which were tuned on the same validation part, user by user; the model is\n{baselines}"
        f"{slices}\n\n{_calibration(results)}\n\n{descriptions.trust_line(data)}"
    )


def _slices(reports: Sequence[Report], kind: str, metric: str, unit: str) -> list[list[str]]:
    """One line a part, one column a model."""
    found = {
        (part.part, shown.model): part
        for shown in reports
        for part in shown.slices
        if (part.kind, part.metric) == (kind, metric)
    }
    parts = list(dict.fromkeys(name for name, _ in found))
    models = [shown.model for shown in reports]
    return [
        ["", unit, *models],
        *(
            [
                part,
                f"{found[part, models[0]].size:,}",
                report.cell(found[part, models[0]].value),
                *(f"{found[part, model].value.value:.4f}" for model in models[1:]),
            ]
            for part in parts
        ),
    ]


def _calibration(results: Results) -> str:
    """Of the probability of a like, beside that of a constant one."""
    curve = results.model.curves.get("reliability")
    if not curve:
        return "The probability of a like could not be judged: the test part has no dislikes."
    counts = [count or 0.0 for count in curve["count"]]
    liked = sum((rate or 0.0) * count for rate, count in zip(curve["positive_rate"], counts, strict=True))
    rate = liked / sum(counts)
    constant = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)) if 0 < rate < 1 else 0.0
    metrics = results.model.metrics
    return (
        f"The probability of a like: {rate:.1%} of the test rows are likes. Saying that of every row would have a log "
        f"loss of {constant:.4f}; the model's is {report.cell(metrics['log_loss'])}. What it says and what happens are "
        f"{report.cell(metrics['calibration_error'])} apart on average (calibration error)."
    )


def _cold(made: Made, data: Prepared) -> str:
    half_life = made.final.chosen.popularity_half_life
    days = half_life / 86_400
    timed = data.dataset.interactions.timestamp is not None
    recent = f", where a like counts half after {days:,.0f} days" if half_life and timed else ""
    lines = [
        f"- Somebody without a history gets what is popular{recent}; the answer says that it is a cold start.",
        "- Somebody new with a history in the request is ranked by it, without training again.",
    ]
    for part in made.results.model.slices if made.results else []:
        if (part.kind, part.metric) == ("history", "ndcg_at_10") and part.part.startswith("none"):
            lines.append(
                f"- {part.size:,} test users had no history: NDCG@10 {report.cell(part.value)} for them."
            )
        if (part.kind, part.part) == ("popularity", "not in train"):
            lines.append(
                f"- {part.size:,} test likes were of items that nobody had touched before. Such items cannot be "
                f"recommended, which counts against all models alike: Recall@20 {report.cell(part.value)}."
            )
    return "\n".join(lines)


def _popularity(made: Made, found: Exposure) -> str:
    lines = [
        ["items", "of them", "of what these users did", "of the places in their lists"],
        *([name, f"{size:,}", f"{did:.1%}", f"{got:.1%}"] for name, (size, did, got) in found.parts.items()),
    ]
    head = next(iter(found.parts.values()))
    more = 100 * (head[2] - head[1])
    coverage = ""
    if made.results is not None:
        metrics = made.results.model.metrics
        popular = {shown.model: shown for shown in made.results.baselines}["popularity"].metrics
        coverage = (
            f" Over all test users, coverage is {report.cell(metrics['coverage_at_10'])} (popularity: "
            f"{popular['coverage_at_10'].value:.4f}) and novelty {report.cell(metrics['novelty_at_10'])} bits "
            f"(popularity: {popular['novelty_at_10'].value:.4f})."
        )
    return (
        f"The first {exposure.K} of {found.users:,} users, asked of the final model:\n\n"
        f"{report.markdown_table(lines)}\n\n"
        f"The head has {head[2]:.1%} of the places, {abs(more):.1f} points {'more' if more > 0 else 'less'} than these "
        "users gave it by themselves. "
        f"{found.items:,} of {found.catalogue:,} items ({found.items / found.catalogue:.1%}) are in anybody's list."
        f"{coverage}"
    )


def _data(data: Prepared) -> str:
    rows = data.dataset.interactions
    return (
        f"{data.dataset.name}: {len(rows):,} interactions ({data.dataset.source}), digest `{data.dataset.digest}`. "
        f"Split {data.split.description}. More in `{data_sheet.FILE}`.\n\n"
        f"- Terms: {data_sheet.terms(data)}\n- {data_sheet.privacy(data)}"
    )


def _training(made: Made, run: Run, search: Search | None) -> str:
    recipe = made.selection.recipe
    chosen = recipe.chosen
    machine = environment.describe()
    device = str(resolve_device(recipe.config.train.device))
    where = ", ".join(machine["gpus"]) if device.startswith("cuda") else f"{machine['cpu_count']} cores"
    flags = as_flags(recipe.config)
    lines = [
        f"- settings other than the defaults: `{flags}`" if flags else "- the default settings",
        f"- chosen on the validation part: {chosen.ranking_epochs} epochs of the ranking head, {chosen.like_epochs} of "
        f"the like head, deep share {chosen.deep_share:.2f}, low-rank share of it {chosen.factor_share:.2f}, ridge of "
        f"the crosses {chosen.closed_form.crosses.l2:.4g}; the rest in `recipe.json`",
        f"- seed {recipe.config.train.seed}, on {device} ({where}), threads: {machine['threads']}, torch "
        f"{machine['build']['torch']}",
        "- time: "
        + ", ".join(f"{stage} {report.duration(seconds)}" for stage, seconds in run.seconds.items()),
    ]
    if search is not None:
        lines.insert(1, f"- search: {search_texts.line(search)}")
    return "\n".join(lines) + f"\n\nVersions and machine are in `environment.json` of run `{run.id}`."


def _limits(made: Made, data: Prepared) -> str:
    rows = data.dataset.interactions
    lines = []
    if made.results is not None:
        lost = [name for name, gain in made.results.gains.items() if not gain.absolute.low > 0]
        if lost:
            lines.append(
                f"- It is not sure that it ranks better than {', '.join(lost)} on these data; simpler would do."
            )
        lines.append(
            "- The figures are offline: they say how well the rest of these histories is foretold, not what people do "
            "when they see the lists."
        )
    if rows.timestamp is not None:
        last = datetime.fromtimestamp(int(rows.timestamp.max()), UTC).strftime("%Y-%m-%d")
        lines.append(f"- It has seen nothing after {last}; what came later it does not know.")
    if data.trust.caution:
        lines.append(f"- {data.trust.caution}.")
    if not data_sheet.user_attributes(data):
        lines.append(
            "- The data have no attributes of users, so whether it serves groups of people alike cannot be said."
        )
    else:
        lines.append(
            f"- It reads the users' {', '.join(data_sheet.user_attributes(data))}; figures by those were not made."
        )
    return "\n".join(lines)


def _values(found: dict[str, float]) -> str:
    return ", ".join(f"{report.LABELS.get(name, name)} {value:.4f}" for name, value in found.items())
