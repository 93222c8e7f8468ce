"""The commands that ask one question each. They return the exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json

from server.client.connection import Client
from server.client.table import print_answer, print_columns, print_pairs, printable
from server.client.values import Answer, ModelInfo, ModelStatus


def recommend(client: Client, given: argparse.Namespace) -> int:
    answer = client.recommend(
        given.user_id,
        given.k,
        history=given.history,
        ratings=given.ratings,
        exclude_seen=not given.include_seen,
        exclude=given.exclude,
        candidates=given.candidates,
        genres=given.genre,
        year_from=given.year_from,
        year_to=given.year_to,
        include_cold_items=given.include_cold_items,
        explain=given.explain,
        diversity=given.diversity,
        fallback=given.fallback,
        model_version=given.model_version,
        request_id=given.request_id,
    )
    _show(answer, given, f"{len(answer.items)} items for {_whom(given)}", "score")
    return 0


def score(client: Client, given: argparse.Namespace) -> int:
    answer = client.score(
        given.user_id,
        given.item_ids,
        history=given.history,
        ratings=given.ratings,
        fallback=given.fallback,
        model_version=given.model_version,
        request_id=given.request_id,
    )
    _show(answer, given, f"How likely {_whom(given)} is to like them", "like")
    return 0


def similar(client: Client, given: argparse.Namespace) -> int:
    answer = client.similar(
        given.item_ids,
        given.k,
        exclude=given.exclude,
        candidates=given.candidates,
        genres=given.genre,
        year_from=given.year_from,
        year_to=given.year_to,
        include_cold_items=given.include_cold_items,
        model_version=given.model_version,
        request_id=given.request_id,
    )
    _show(answer, given, f"{len(answer.items)} items like {', '.join(given.item_ids)}", "similarity")
    return 0


def info(client: Client, given: argparse.Namespace) -> int:
    about = client.info()
    if given.json:
        print(json.dumps(dataclasses.asdict(about), indent=2))
        return 0
    print_pairs(
        [
            ("model", str(about.model)),
            ("data set", about.dataset),
            ("users", f"{about.user_count:,}"),
            ("items", f"{about.item_count:,}"),
            ("a like is", f"a rating of {about.like_threshold:g} or more"),
            ("trained", about.created_at),
            ("device", about.device),
            *_ranking(about),
            *_registry(about),
            *((name, f"{value:.4f}") for name, value in sorted(about.metrics.items())),
        ]
    )
    return 0


def models(client: Client, given: argparse.Namespace) -> int:
    found = client.models()
    if given.json:
        print(json.dumps([dataclasses.asdict(status) for status in found], indent=2))
        return 0
    rows = [
        (_named(status), _state(status), status.since, str(status.lease_count), _why(status))
        for status in found
    ]
    header = ("model", "state", "since", "in use", "why")
    print_columns([header, *(tuple(map(printable, row)) for row in rows)], left=3)
    return 0


def health(client: Client, given: argparse.Namespace) -> int:
    status = client.health()
    print(json.dumps({"status": status}) if given.json else status)
    return 0 if status == "SERVING" else 1


def _named(status: ModelStatus) -> str:
    model = status.model
    return str(model) if model.version else f"{model.name} ({model.alias})"


def _state(status: ModelStatus) -> str:
    return status.state.lower() + (f" {status.share:.3g}" if 0 < status.share < 1 else "")


def _why(status: ModelStatus) -> str:
    found = status.agreement
    if found is None:
        return status.reason
    words = [
        f"{found.mean_overlap:.4f} of {found.ranking_count} rankings as by version {found.compared_version}",
        f"{found.same_first_share:.4f} with its first item",
        f"{found.score_count} scores {found.mean_difference:.4f} apart",
        f"{found.dropped_count} dropped, {found.failed_count} failed",
    ]
    return "; ".join(words)


def _ranking(about: ModelInfo) -> list[tuple[str, str]]:
    if about.ranking is None:
        return []
    ranking = about.ranking
    way = f"from candidates, recall {ranking.recall:.4f}" if ranking.approximate else "of every item"
    return [
        (
            "ranking",
            f"{way}, in {ranking.precision} (top 100 as by float32: {ranking.precision_agreement:.4f})",
        )
    ]


def _registry(about: ModelInfo) -> list[tuple[str, str]]:
    if about.registry is None:
        return []
    registry = about.registry
    last = registry.seconds_since_answer
    words = [
        "followed" if registry.following else "not followed",
        "reachable" if registry.reachable else f"not reachable: {registry.error}",
        "has not answered yet" if last is None else f"answered {last:.1f} s ago",
        *(["this version is from the cache"] if registry.from_cache else []),
        f"{registry.reload_count} reloads, {registry.refused_count} refused, {registry.failure_count} failures",
    ]
    return [("registry", "; ".join(words))]


def _whom(given: argparse.Namespace) -> str:
    if given.user_id:
        return f"user {given.user_id}"
    return "this history" if given.history else "somebody unknown"


def _show(answer: Answer, given: argparse.Namespace, headline: str, score: str) -> None:
    if given.json:
        print(json.dumps(dataclasses.asdict(answer), indent=2))
    else:
        print_answer(answer, headline, score)
