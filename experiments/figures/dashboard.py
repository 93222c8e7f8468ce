"""Which figures a job logs, and where to: figures/ has what is looked at, evaluation/ the tables behind it."""

from __future__ import annotations

import time
from functools import cache

from matplotlib.figure import Figure

from experiments.figures import catalogue, embedding, examples, examples_page, forest, item_map, likes, report
from experiments.figures import training as of_training
from experiments.figures.album import Album
from experiments.gate import Verdict
from experiments.judging import Results
from experiments.recipe import Prepared, Selection
from experiments.report import SUMMARY_DPI, SUMMARY_FIGURE
from experiments.tracking import Run
from widedeep.recommender import Recommender
from widedeep.report import Report


def training(selection: Selection, data: Prepared, album: Album) -> None:
    """How the selection went, epoch by epoch."""
    chosen = selection.recipe.chosen
    kept = {"ranking": chosen.ranking_epochs, "like": chosen.like_epochs}
    about = f"Training on {data.dataset.name}"
    album.add("figures/training_curves.png", lambda: of_training.curves(selection.curves, kept, about))


def results(found: Results, data: Prepared, album: Album) -> None:
    """The model beside the others."""
    ours, reports = found.model, found.all
    about = f"{data.dataset.name}, split {data.split.method}, {ours.users:,} test users"
    rows = f"{data.dataset.name}, split {data.split.method}, {ours.rows:,} test ratings"
    album.add("figures/ndcg_by_model.png", lambda: report.by_model(reports, "ndcg_at_10", about))
    album.add(SUMMARY_FIGURE, lambda: report.by_model(reports, "ndcg_at_10", about), dpi=SUMMARY_DPI)
    album.add(
        "figures/differences.png", lambda: forest.against_others(reports, about, samples=found.bootstrap)
    )
    album.add("figures/slices.png", lambda: report.by_slice(reports, about))
    album.add("figures/trade_offs.png", lambda: catalogue.trade_offs(reports, about))
    album.add("figures/reliability.png", lambda: report.reliability(ours, rows))
    album.add("figures/precision_recall.png", lambda: likes.precision_recall(reports, rows))
    album.add("figures/thresholds.png", lambda: likes.thresholds(ours, rows))
    album.add("evaluation/thresholds_table.json", lambda: likes.at_thresholds(ours))


def model(evaluated: Recommender, found: Report, data: Prepared, album: Album) -> None:
    """What the model that was evaluated has learned, and what it recommends.  found: its report"""
    name = data.dataset.name

    @cache  # for two figures each
    def places() -> embedding.ItemMap | None:
        return embedding.item_map(evaluated)

    @cache
    def shown() -> list[examples.Example]:
        return examples.examples(evaluated, data.split.test, found)

    def picture() -> Figure | None:
        items = places()
        return None if items is None else item_map.drawn(items, f"Items of {name} as the model sees them")

    def hovered() -> str | None:
        items = places()
        return None if items is None else item_map.hovered(items, f"Items of {name} as the model sees them")

    album.add("figures/embedding_map.png", picture)
    album.add("figures/embedding_map.html", hovered)
    about = f"{name}, split {data.split.method}"
    album.add("evaluation/examples_table.json", lambda: examples.table(shown()))
    album.add("figures/examples.html", lambda: examples_page.page(shown(), about))


def verdict(found: Verdict, data: Prepared, album: Album) -> None:
    album.add("figures/gate.png", lambda: forest.verdict(found, data.dataset.name))


def times(run: Run, data: Prepared, album: Album) -> None:
    """The last of the figures: where all the time until here went."""
    run.metrics({"seconds/figures": run.seconds.get("figures", 0.0)})
    heads, total = album.console.heads, time.monotonic() - album.console.started
    about = f"Time of {run.job} on {data.dataset.name}"
    album.add("figures/time.png", lambda: of_training.times(run.seconds, heads, total, about))
