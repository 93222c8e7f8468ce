"""The tables and texts that people read: on the terminal, in the run's description and in the registry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from widedeep.bootstrap import Interval, PairedDifference
from widedeep.report import METRICS, Report

LABELS = {
    "ndcg_at_10": "NDCG@10",
    "recall_at_10": "Recall@10",
    "recall_at_20": "Recall@20",
    "hit_rate_at_10": "HR@10",
    "mrr": "MRR",
    "coverage_at_10": "Coverage@10",
    "novelty_at_10": "Novelty@10 (bits)",
    "diversity_at_10": "Genre diversity@10",
    "auc": "AUC",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}
LOWER_IS_BETTER = ("log_loss", "calibration_error")
NOTHING = "–"
INTERVALS = (
    "95% intervals in brackets, by bootstrap over users. Lower is better for log loss and calibration error."
)
SUMMARY_DPI = 80
SUMMARY_FIGURE = "evaluation/summary.png"  # small enough for a description
WIDE = "&emsp;"
UNBROKEN = "&NoBreak;–&NoBreak;"


def cell(value: Interval) -> str:
    """0.131 (0.120–0.142): a figure and its 95% interval."""
    if math.isnan(value.value):
        return NOTHING
    if math.isnan(value.low):
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.3f}–{value.high:.3f})"


def rows(reports: Sequence[Report]) -> list[list[str]]:
    """A header, then one line a metric, one column a model."""
    header = ["", *(report.model for report in reports)]
    return [
        header,
        *([LABELS[name], *(cell(report.metrics[name]) for report in reports)] for name in METRICS),
    ]


def short_rows(reports: Sequence[Report]) -> list[list[str]]:
    """As `rows`, with the intervals of the first model alone: what a narrow page has room for."""
    return [
        ["", *(report.model for report in reports)],
        *(
            [LABELS[name], *(_short(report.metrics[name], first=report is reports[0]) for report in reports)]
            for name in METRICS
        ),
    ]


def turned(reports: Sequence[Report], names: Sequence[str]) -> list[list[str]]:
    """A header, then one line a model, one column for each of these metrics; intervals as in `short_rows`."""
    return [
        ["", *(LABELS[name] for name in names)],
        *(
            [report.model, *(_short(report.metrics[name], first=report is reports[0]) for name in names)]
            for report in reports
        ),
    ]


def _short(value: Interval, *, first: bool) -> str:
    return cell(value if first else Interval(value.value, math.nan, math.nan))


def gain_text(found: PairedDifference, against: str) -> str:
    """surely better than EASE: NDCG@10 0.1336 against 0.1270, +0.0066 (+5.2%), 95% interval +0.0024 to +0.0108"""
    gain, share = found.absolute, found.relative.value
    if math.isnan(gain.low):
        word, interval = "above" if gain.value > 0 else "not above", ""
    else:
        sure = "surely better" if gain.low > 0 else "surely worse" if gain.high < 0 else "not surely better"
        word, interval = f"{sure} than", f", 95% interval {gain.low:+.4f} to {gain.high:+.4f}"
    relative = "" if math.isnan(share) else f" ({share:+.1%})"
    return (
        f"{word} {against}: NDCG@10 {found.mean:.4f} against {found.reference_mean:.4f}, "
        f"{gain.value:+.4f}{relative}{interval}"
    )


def plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns with a rule under the header."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    printed = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([printed[0], "  ".join("-" * width for width in widths), *printed[1:]])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    header, *body = (f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)
    return "\n".join([header, "|" + " --- |" * len(lines[0]), *body])


def described_table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown for a description in MLflow's UI, which leaves no gap between cells and breaks lines at dashes."""
    return markdown_table([[text.replace("–", UNBROKEN) + WIDE for text in line] for line in lines])


def document(reports: Sequence[Report], title: str, about: str) -> str:
    """The table as a page of its own.  about: the split"""
    return (
        f"# {title}\n\nSplit {about}.\n\n{markdown_table(rows(reports))}\n\n{INTERVALS} Baselines are tuned on the "
        "validation part. Every figure is of a model trained on what comes before the test part.\n"
    )


def frame(reports: Sequence[Report]) -> pd.DataFrame:
    """One row a model and metric, for the table in the UI: model, metric, value, low, high."""
    return pd.DataFrame(
        [
            {"model": report.model, "metric": LABELS[name], **_rounded(value)}
            for report in reports
            for name, value in report.metrics.items()
        ]
    )


def wide_frame(reports: Sequence[Report]) -> pd.DataFrame:
    """One row a model, one column a metric with its interval as text."""
    return pd.DataFrame(
        [
            {"model": report.model, **{LABELS[name]: cell(value) for name, value in report.metrics.items()}}
            for report in reports
        ]
    )


def slices_frame(reports: Sequence[Report]) -> pd.DataFrame:
    """One row a model and slice: model, kind, part, size, metric, value, low, high."""
    return pd.DataFrame(
        [
            {
                "model": report.model,
                "kind": part.kind,
                "part": part.part,
                "size": part.size,
                "metric": LABELS.get(part.metric, part.metric),
                **_rounded(part.value),
            }
            for report in reports
            for part in report.slices
        ]
    )


def _rounded(value: Interval) -> dict[str, float | None]:
    return {name: None if found is None else round(found, 5) for name, found in value.to_dict().items()}


def metrics_of(reports: Sequence[Report]) -> dict[str, float | None]:
    """For the run: the model's figures with their intervals, and those of the others in a group of their own.

    A chart is drawn of each, so the others' intervals are left to the tables.
    """
    found: dict[str, float | None] = {}
    first, *others = reports
    for name, value in first.metrics.items():
        found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    for report in others:
        maker = report.model.replace(" ", "_")
        found |= {f"reference/{maker}_{name}": value.value for name, value in report.metrics.items()}
    return found


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def settings_text(values: dict[str, Any]) -> str:
    """wide_l2 150, dropout 0.2, …"""
    return ", ".join(f"{name} {setting_text(value)}" for name, value in values.items())


def setting_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
