"""The data sheet of a run: what its data are, what was done to them, and how to load them again.

Source  Gebru et al. 2021, Datasheets for Datasets, arXiv 1803.09010: its questions, as far as the data answer them
"""

from __future__ import annotations

from experiments import report
from experiments.flags import as_flags
from experiments.recipe import Prepared
from widedeep.config import Config
from widedeep.datasets import DATASETS

FILE = "data_sheet.md"
MOVIELENS_TERMS = (
    "GroupLens's, in the README of the release: research use, with acknowledgement (Harper and Konstan 2015, "
    "doi 10.1145/2827872); no commercial use without the permission of GroupLens. Whether copies may be passed on "
    "differs by release."
)


def write(data: Prepared) -> str:
    """As Markdown."""
    dataset, config, split = data.dataset, data.config, data.split
    rows = dataset.interactions
    facts = [("", dataset.name), *data.examined.profile.rows()]
    parts = [("train", split.train), ("validation", split.validation), ("test", split.test)]
    sizes = [
        ["part", "interactions", "liked"],
        *(
            [name, f"{len(part):,}", f"{int(part.liked(config.like_threshold).sum()):,}"]
            for name, part in parts
        ),
    ]
    sections = [
        f"# Data sheet: {dataset.name}",
        f"## Where they are from\n\n{_origin(data)}",
        f"## What is in them\n\nOne row is one interaction of a user with an item.\n\n"
        f"{report.markdown_table([[what, value] for what, value in facts])}",
        f"## What a like is\n\n{_label(data)}",
        f"## What was done to them\n\n{_notes(data)}",
        f"## How they are split\n\nSplit {split.description}.\n\n{report.markdown_table(sizes)}\n\n"
        f"{data.trust}.{f' {data.trust.caution}.' if data.trust.caution else ''}",
        f"## What is missing\n\n{_missing(data)}",
        f"## Whose data they are\n\n{privacy(data)}",
        f"## Terms\n\n{terms(data)}",
        "## Load them again\n\n"
        f"```\npython -m experiments validate {as_flags(Config(data=config))}\n```\n\n"
        f"The interactions that this run has read have the SHA-256 digest `{dataset.digest}` ({len(rows):,} rows, in "
        "the order of the file); `widedeep.datasets.load` gives it as `.digest`.",
    ]
    return "\n\n".join(sections) + "\n"


def terms(data: Prepared) -> str:
    """The licence, where it is known."""
    if data.dataset.truth is not None:
        return "None: the data were made by this program."
    if data.dataset.name in DATASETS:
        return MOVIELENS_TERMS
    return "Not known to this program: the data are files of your own."


def privacy(data: Prepared) -> str:
    """What of people goes where."""
    if data.dataset.truth is not None:
        return "Nobody's: the users are made up."
    attributes = ", ".join(user_attributes(data))
    return (
        "Each row is what a person did. The run and the registered model keep the users' ids as they are in the data: "
        "`model.pth` holds every id with its history of items and ratings, "
        f"{f'the users’ attributes ({attributes}), ' if attributes else ''}"
        "and `evaluation/per_user.parquet` the ids of the test users with their figures. Whoever may read those files "
        "may read that. To forget a user, leave the rows out, train again, and delete the older versions and runs."
    )


def user_attributes(data: Prepared) -> list[str]:
    return [str(name) for name in data.dataset.users.columns if name != "user_id"]


def _origin(data: Prepared) -> str:
    dataset = data.dataset
    if dataset.truth is not None:
        return (
            f"{dataset.source[:1].upper()}{dataset.source[1:]}. The preferences are planted, so the best ranking that "
            "can be reached is known."
        )
    if dataset.name in DATASETS:
        release = DATASETS[dataset.name]
        differs = len(dataset.interactions) - release.ratings
        said = f" {abs(differs):,} {'more' if differs > 0 else 'fewer'} were read here." if differs else ""
        return (
            f"{release.description}, published by GroupLens (https://grouplens.org/datasets/movielens/), read from "
            f"{dataset.source}. It has {release.ratings:,} ratings by {release.users:,} users of "
            f"{release.items:,} listed films.{said}"
        )
    return f"Files of your own: {dataset.source}. Who collected them, how and why is not written in them: add it here."


def _label(data: Prepared) -> str:
    if data.dataset.interactions.rating is None:
        return "There are no ratings, so every interaction counts as a like; what a user did not touch is unknown."
    return (
        f"A rating of {data.config.like_threshold:g} or more (`--like-threshold`). Lower ratings are dislikes only in "
        "comparison; what a user did not rate is unknown."
    )


def _notes(data: Prepared) -> str:
    repaired = data.config.on_bad_rows == "repair"
    notes = "".join(f"\n- {note}" for note in data.dataset.notes)
    if notes:
        return f"While reading:\n{notes}"
    if repaired:
        return "Nothing had to be repaired: no row was bad, and no pair of a user and an item came twice."
    return "Nothing: bad rows and pairs that come twice would have stopped the run, and there were none."


def _missing(data: Prepared) -> str:
    dataset = data.dataset
    items = dataset.items
    untitled = int((items["title"] == "").sum()) if len(items) else 0
    found = [
        "times" if dataset.interactions.timestamp is None else "",
        "ratings" if dataset.interactions.rating is None else "",
        "" if user_attributes(data) else "attributes of the users",
        "" if len(items) and (items["genres"] != "").any() else "genres of the items",
        f"titles of {untitled:,} listed items" if untitled else "",
        f"the years of {int((items['year'] == 0).sum()):,} listed items"
        if len(items) and (items["year"] == 0).any()
        else "",
    ]
    there = [text for text in found if text]
    chosen = "Which items a user was shown is not recorded, so an item without a rating says nothing."
    return f"Not in the data: {', '.join(there)}. {chosen}" if there else chosen
