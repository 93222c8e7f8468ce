"""What a person types next: commands that work as they stand, from any folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from experiments import aliases, experiment_page, registry, tracking
from experiments.gate import Verdict
from experiments.jobs import JobConfig, promote_command, rollback_command
from experiments.registry import Version
from experiments.tracking import Run
from widedeep.errors import WideDeepError
from widedeep.recommender import Recommender
from widedeep.store_trouble import masked, without_user

if TYPE_CHECKING:  # it imports this module
    from experiments.publish import Published

ADDRESS = "127.0.0.1:50051"
SEE = "see it"  # makes sense on a terminal alone: who reads a description is there


def next_commands(
    run: Run, published: Published, job: JobConfig, verdict: Verdict | None, *, tested: bool
) -> list[tuple[str, str]]:
    """(what, command) for the UI, the server and the client, to make the run again, and to go back where there is
    something to go back to.

    tested  there was a test part: without one there is nothing to hold a second run against
    """
    model, user = _to_serve(run, published, job, verdict)
    found = [(SEE, _ui(run)), _serve(model), _ask(user), *again(run, tested=tested)]
    if published.version is not None and _moved(published.version, job.alias):
        found.append(("go back", f"{store_prefix()}{rollback_command(published.version.name, job.alias)}"))
    return found


def version_commands(
    run: Run, version: Version, user: Any, alias: str, *, tested: bool
) -> list[tuple[str, str]]:
    """The same for a version, whoever has the alias.  user: one whom it knows"""
    name = version.name
    return [
        _serve(version.uri),
        _ask(user),
        *again(run, tested=tested),
        (
            f"let it take {alias} if it earns it",
            f"{store_prefix()}{promote_command(name, version.number, alias)}",
        ),
        (
            f"give {alias} back to who had it before",
            f"{store_prefix()}{rollback_command(name, alias)}",
        ),
    ]


def model_commands(name: str, alias: str, user: Any) -> list[tuple[str, str]]:
    """The same for whatever version has the alias."""
    uri = f"models:/{name}@{alias}"
    recommend = (
        f"python -m experiments recommend --model {shlex.quote(uri)} --k 10 --out recommendations.parquet"
    )
    return [
        _serve(uri),
        _ask(user),
        ("recommendations for all users into a file", store_prefix() + recommend),
        (f"give {alias} back to who had it before", store_prefix() + rollback_command(name, alias)),
    ]


def again(run: Run, *, tested: bool) -> list[tuple[str, str]]:
    """Makes the run again and holds the two side by side."""
    return [("again", f"{store_prefix()}python -m experiments reproduce {run.id}")] if tested else []


def store_prefix() -> str:
    """Stands before a command that would else look into another store."""
    word = _store_word()
    return "" if _is_default_store() or word.startswith('"$') else f"MLFLOW_TRACKING_URI={word} "


def _store_word() -> str:
    """The store's address as a word of a command; where a password is in it, the variable that it came from."""
    store = mlflow.get_tracking_uri()
    return shlex.quote(store) if masked(store) == store else '"$MLFLOW_TRACKING_URI"'


def someone(model: Recommender, k: int = 10) -> Any:
    """A user for whom there are k items left to recommend, if there is one."""
    left = model.processor.warm_count - model.histories.lengths[1:].cpu()
    enough = (left >= k).nonzero()
    return model.processor.users.id_of(int(enough[0, 0]) + 1 if len(enough) else int(left.argmax()) + 1)


def _serve(model: str) -> tuple[str, str]:
    registered = model.startswith("models:") and not _is_default_store()
    tracking_uri = f" --tracking-uri {_store_word()}" if registered else ""
    host, port = ADDRESS.split(":")
    return (
        "serve it",
        f"python -m server --model {shlex.quote(model)} --host {host} --port {port}{tracking_uri}",
    )


def _ask(user: Any) -> tuple[str, str]:
    return (
        "ask it",
        f"python -m server.client recommend --target {ADDRESS} --user-id {shlex.quote(str(user))} --k 10",
    )


def _ui(run: Run) -> str:
    store = mlflow.get_tracking_uri()
    page = f"#/experiments/{run.experiment_id}/runs/{run.id}?{experiment_page.TRAINING_VIEW}"
    if store.startswith("http"):
        return f"open {shlex.quote(f'{without_user(store)}/{page}')}"
    where = "" if _is_default_store() else f" --backend-store-uri {_store_word()}"
    return f"mlflow ui{where}    # then open http://127.0.0.1:5000/{page}"


def _moved(version: Version, alias: str) -> bool:
    """The version has the alias, and another had it before."""
    had = [move["version"] for move in aliases.history(version.name, alias)] if alias else []
    return bool(had) and had[-1] == version.number and len(set(had)) > 1


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


def _is_default_store() -> bool:
    """The store that MLflow takes by itself in this folder."""
    store = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    return Path(store).absolute() == Path("mlflow.db").absolute()
