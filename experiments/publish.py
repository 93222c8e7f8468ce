"""From a trained model to a version in the registry that is known to work, and to its alias."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import aliases, registry, report
from experiments.jobs import JobConfig
from experiments.progress import Console
from experiments.recipe import Prepared
from experiments.registry import Version
from experiments.stages import ALL, Made
from experiments.tracking import Run
from widedeep.bundle import DIGEST_TAG
from widedeep.errors import RegistryError
from widedeep.files import sha256_of
from widedeep.recommender import Recommender

GATE = "Gate: "  # begins the paragraph of a description that says what the gate said
ABOUT = (
    "Wide & Deep recommender: `predict` ranks the catalogue for user ids or histories, or gives the probability "
    "of a like for pairs. Each version's data is the bundle `artifacts/model.pth`, which the gRPC server reads "
    "as it is: `python -m server --model models:/{name}@{alias}`.\n\n"
    "Versions carry the verdict of the gate as a tag; the alias `{alias}` is on the one that is served."
)


@dataclass(frozen=True)
class Published:
    """version: what was registered, None where nothing was;  user: one that the model has something to tell"""

    version: Version | None
    user: Any


def publish(made: Made, data: Prepared, job: JobConfig, run: Run, console: Console, gate: str) -> Published:
    """Log the bundle, and register it if it is to be; a version is loaded back and asked before anything else.

    gate    what the version says of it until there is a verdict
    Raises  RegistryError: what was registered does not answer as the trained model does
    """
    users = made.final.processor.users.ids[: registry.CHECKED_USERS].tolist()
    made.final.about.update(_about(made, data, run))
    if run.board:
        run.board.items(made.final, console)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / registry.BUNDLE
        made.final.save(bundle)
        run.file(bundle, late=False)
        if not job.register:
            return Published(None, someone(made.final))
        digest = sha256_of(bundle)  # the server holds what it downloads against it
        model_uri = registry.log_model(bundle, users)
    version = registry.register(
        model_uri,
        job.register,
        run.id,
        tags={"gate": gate, DIGEST_TAG: digest} | _tags(made, data, run),
        description=description(made, data, gate),
        about=ABOUT.format(name=job.register, alias=job.alias or "champion"),
    )
    try:
        difference = registry.check_registered(version, made.final, users)
    except RegistryError as error:
        record(version, "refused", "loaded back", str(error))
        raise
    run.tags({"registered_version": f"{version.name}/{version.number}"})
    run.metrics({"registry/score_difference": difference})
    console.say(f"register: {version}, loaded back, scores equal within {difference:.1g}")
    return Published(version, someone(made.final))


def someone(model: Recommender, k: int = 10) -> Any:
    """A user for whom there are k items left to recommend, if there is one."""
    left = model.processor.warm_count - model.histories.lengths[1:].cpu()
    enough = (left >= k).nonzero()
    return model.processor.users.id_of(int(enough[0, 0]) + 1 if len(enough) else int(left.argmax()) + 1)


def give_alias(version: Version, alias: str, why: str, console: Console) -> None:
    aliases.move_alias(version, alias, why, console.say)
    console.say(f"alias: {version.name}@{alias} is now version {version.number} ({why})")


def record(version: Version, word: str, rule: str, reason: str) -> None:
    """Write what the gate said to the version's tags and, in place of what it said before, to its description."""
    reason = reason.rstrip(".")
    kept = [part for part in version.description.split("\n\n") if part and not part.startswith(GATE)]
    registry.annotate(
        version,
        tags={"gate": word, "gate.rule": rule, "gate.reason": reason[:4000]},
        description="\n\n".join([*kept, f"{GATE}{word} ({rule}). {reason}."]),
    )


def description(made: Made, data: Prepared, verdict: str) -> str:
    """The version's description: what it is, what its figures are of, and what the gate said."""
    rows = data.dataset.interactions
    lines = [
        f"Wide & Deep trained on {made.trained_on} of **{data.dataset.name}** ({len(rows):,} interactions).",
        "" if data.dataset.truth is None else "**Synthetic data: made up, not real.**",
    ]
    if made.results is not None:
        lines += [
            "The figures are of the same recipe trained on what comes before the test part "
            f"(split {data.split.method}); this model has {'also ' if made.trained_on == ALL else 'not '}"
            "seen the test part.",
            report.described_table(report.rows(made.results.all)),
        ]
    else:
        lines.append("There was no test part (split=none), so there are no test figures.")
    lines.append(f"{GATE}{verdict}.")
    return "\n\n".join(line for line in lines if line)


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
    found = {
        "dataset": data.dataset.name,
        "data_digest": data.dataset.digest,
        "comparison_key": data.key,
        "synthetic": str(data.dataset.truth is not None).lower(),
        "trained_on": made.trained_on,
        "run_id": run.id,
    }
    if made.results is not None:
        for name in ("ndcg_at_10", "recall_at_20", "auc"):
            value = made.results.model.metrics[name].value
            if value == value:
                found[name] = f"{value:.4f}"
    return found
