"""Check a data set, and print what is in it.

    mlflow run . -e validate -P dataset=ml-latest-small
    python -m experiments validate --dataset files --ratings ratings.csv --on-bad-rows repair

Reading it is the check: rows that are no interactions end it with an error that names them, unless they are to be
repaired; then the repairs are listed.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from experiments import report
from experiments.progress import Console
from widedeep import datasets
from widedeep.config import DataConfig
from widedeep.datasets import Dataset
from widedeep.errors import EmptyDataError
from widedeep.split import split


def job(config: DataConfig, console: Console) -> None:
    """The entry point `validate`."""
    dataset = datasets.load(config, progress=console.say)
    print(
        report.plain_table([["", dataset.name], *([what, value] for what, value in profile(dataset, config))])
    )
    for note in dataset.notes:
        print(f"note: {note}")
    for warning in warnings(dataset, config):
        print(f"warning: {warning}")
    parts = split(dataset.interactions, config)
    print(f"split {parts.description}")
    if not len(parts.validation):
        print("warning: the validation part is empty, so nothing can be chosen on it")
    print("the data can be trained on")


def profile(dataset: Dataset, config: DataConfig) -> list[tuple[str, str]]:
    """(what, value) about a data set."""
    rows = dataset.interactions
    users, per_user = np.unique(rows.user_id, return_counts=True)
    items, per_item = np.unique(rows.item_id, return_counts=True)
    liked = rows.liked(config.like_threshold)
    titled = set(dataset.items["item_id"].tolist())
    described = sum(item in titled for item in items.tolist())
    found = [
        ("source", dataset.source),
        ("digest", dataset.digest[:16]),
        ("interactions", f"{len(rows):,}"),
        ("users", f"{len(users):,}"),
        ("items", f"{len(items):,}"),
        ("density", f"{len(rows) / (len(users) * len(items)):.3%}"),
        ("interactions per user", _quantiles(per_user)),
        ("interactions per item", _quantiles(per_item)),
        ("items with one interaction", f"{(per_item == 1).mean():.1%}"),
        ("share of the top 1% of items", f"{_top_share(per_item):.1%}"),
        ("liked", f"{liked.sum():,} ({liked.mean():.1%}), {_likes_by(config, dataset)}"),
        ("users without a like", f"{len(users) - len(np.unique(rows.user_id[liked])):,}"),
    ]
    if rows.rating is not None:
        values, counts = np.unique(rows.rating, return_counts=True)
        found.append(("ratings", f"{values[0]:g} to {values[-1]:g}, mean {rows.rating.mean():.3f}"))
        if len(values) <= 20:
            shares = "  ".join(
                f"{value:g}: {count / len(rows):.1%}" for value, count in zip(values, counts, strict=True)
            )
            found.append(("", shares))
    else:
        found.append(("ratings", "none"))
    if rows.timestamp is not None:
        found.append(("times", f"{_date(rows.timestamp.min())} to {_date(rows.timestamp.max())} (UTC)"))
    else:
        found.append(("times", "none"))
    found += [
        (
            "items with a title row",
            f"{described:,} of {len(items):,}; {len(titled) - described:,} more are known",
        ),
        (
            "user attributes",
            ", ".join(str(name) for name in dataset.users.columns if name != "user_id") or "none",
        ),
    ]
    return found


def warnings(dataset: Dataset, config: DataConfig) -> list[str]:
    """What is allowed and yet likely to disappoint."""
    rows = dataset.interactions
    _, per_user = np.unique(rows.user_id, return_counts=True)
    liked = rows.liked(config.like_threshold)
    if not liked.any():
        raise EmptyDataError(
            f"None of the {len(rows):,} interactions is liked (rating >= {config.like_threshold:g}). "
            "Lower --like-threshold."
        )
    found = []
    if np.median(per_user) < 5:
        found.append(
            f"half of the users have fewer than 5 interactions ({np.median(per_user):g} in the middle)"
        )
    if rows.rating is not None and liked.all():
        found.append(
            "every rating counts as liked, so there is no like-probability to learn: raise --like-threshold"
        )
    if rows.timestamp is not None and (rows.timestamp == rows.timestamp[0]).all():
        found.append("all timestamps are equal, so a split by time has only the item's id to go by")
    return found


def _likes_by(config: DataConfig, dataset: Dataset) -> str:
    return (
        "everything: no ratings"
        if dataset.interactions.rating is None
        else f"rating >= {config.like_threshold:g}"
    )


def _quantiles(counts: np.ndarray) -> str:
    low, middle, high = np.quantile(counts, [0, 0.5, 1])
    return f"{low:,.0f} to {high:,.0f}, half have {middle:,.0f} or more"


def _top_share(counts: np.ndarray) -> float:
    first = max(1, len(counts) // 100)
    return float(np.sort(counts)[::-1][:first].sum() / counts.sum())


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d")
