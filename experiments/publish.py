"""From a trained model to a version in the registry that is known to work, and to its alias."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import aliases, descriptions, model_card, registry, registry_texts
from experiments.jobs import JobConfig
from experiments.next_commands import model_commands, someone, version_commands
from experiments.progress import Console
from experiments.recipe import Prepared
from experiments.registry import Version
from experiments.stages import Made
from experiments.tracking import Run
from widedeep.bundle import DIGEST_TAG
from widedeep.errors import RegistryError
from widedeep.files import sha256_of

if TYPE_CHECKING:  # tune imports descriptions, too
    from experiments.tune import Search


@dataclass(frozen=True)
class Published:
    """version: what was registered, None where nothing was;  user: one that the model has something to tell"""

    version: Version | None
    user: Any


def publish(
    made: Made,
    data: Prepared,
    job: JobConfig,
    run: Run,
    console: Console,
    gate: str,
    search: Search | None = None,
) -> Published:
    """Log the bundle and the model's card, and register it if it is to be; a version is loaded back and asked before
    anything else.

    gate    what the version says of it until there is a verdict
    Raises  RegistryError: what was registered does not answer as the trained model does
    """
    users = made.final.processor.users.ids[: registry.CHECKED_USERS].tolist()
    made.final.about.update(_about(made, data, run))
    if run.board:
        run.board.items(made.final, console)
    with tempfile.TemporaryDirectory() as folder:
        bundle, card = Path(folder) / registry.BUNDLE, Path(folder) / model_card.FILE
        made.final.save(bundle)
        card.write_text(model_card.write(made, data, run, bundle.stat().st_size, search), encoding="utf-8")
        run.file(bundle, late=False)
        run.file(card)
        if not job.register:
            return Published(None, someone(made.final))
        digest = sha256_of(bundle)  # the server holds what it downloads against it
        model_uri = registry.log_model(bundle, card, users)
    alias = job.alias or JobConfig.alias
    user = someone(made.final)
    version = registry.register(
        model_uri,
        job.register,
        run.id,
        tags={"gate": gate} | _tags(made, data, run) | {DIGEST_TAG: digest},
        about=registry_texts.of_registered_model(
            job.register, alias, model_commands(job.register, alias, user)
        ),
    )
    said = registry_texts.of_version(
        version,
        made,
        data,
        run,
        gate,
        version_commands(run, version, user, alias, tested=made.results is not None),
    )
    version = replace(version, description=said)
    registry.annotate(version, tags={}, description=said)
    try:
        difference = registry.check_registered(version, made.final, users)
    except RegistryError as error:
        record(version, "refused", "loaded back", str(error))
        raise
    run.tags({"registered_version": f"{version.name}/{version.number}"})
    run.metrics({"registry/score_difference": difference})
    console.say(f"register: {version}, loaded back, scores equal within {difference:.1g}")
    return Published(version, user)


def give_alias(version: Version, alias: str, why: str, console: Console) -> None:
    aliases.move_alias(version, alias, why, console.say)
    console.say(f"alias: {version.name}@{alias} is now version {version.number} ({why})")


def record(version: Version, word: str, rule: str, reason: str) -> None:
    """Write what the gate said to the version's tags and, in place of what it said before, to its description."""
    reason = reason.rstrip(".")
    said = f"{registry_texts.GATE}{word} ({rule}). {reason}."
    parts = version.description.split("\n\n")
    there = [place for place, part in enumerate(parts) if part.startswith(registry_texts.GATE)]
    for place in there[:1] or [len(parts)]:
        parts[place : place + 1] = [said]
    registry.annotate(
        version,
        tags={"gate": word, "gate.rule": rule, "gate.reason": reason[:4000]},
        description=descriptions.joined(parts),
    )


def _about(made: Made, data: Prepared, run: Run) -> dict[str, Any]:
    """For the bundle."""
    metrics = (
        {}
        if made.results is None
        else {name: value.to_dict()["value"] for name, value in made.results.model.metrics.items()}
    )
    return {
        "run_id": run.id,
        "trained_on": made.trained_on,
        "split": data.split.description,
        "synthetic": data.dataset.truth is not None,
        "metrics": metrics,
        "validation": dict(made.selection.validation),
    }


def _tags(made: Made, data: Prepared, run: Run) -> dict[str, str]:
    """In the order in which the list of versions shows them."""
    found = {}
    if made.results is not None:
        for name in ("ndcg_at_10", "recall_at_20", "auc"):
            value = made.results.model.metrics[name].value
            if value == value:
                found[name] = f"{value:.4f}"
    return found | {
        "dataset": data.dataset.name,
        "synthetic": str(data.dataset.truth is not None).lower(),
        "trained_on": made.trained_on,
        "leaks": data.trust.word,
        "run_id": run.id,
        "data_digest": data.dataset.digest,
        "comparison_key": data.key,
    }
