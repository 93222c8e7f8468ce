"""What the registry says of a version and of a registered model, in Markdown."""

from __future__ import annotations

from experiments import descriptions
from experiments.descriptions import Commands
from experiments.recipe import Prepared
from experiments.registry import Version
from experiments.stages import ALL, Made
from experiments.tracking import Run

GATE = "Gate: "  # begins the paragraph of a version that says what the gate said


def of_version(
    version: Version, made: Made, data: Prepared, run: Run, verdict: str, commands: Commands
) -> str:
    """Of a version: what it is, what its figures are of, and what the gate said.  verdict: in a word or two"""
    rows = data.dataset.interactions
    parts = [
        descriptions.headline(made, data, version),  # no heading: the list of versions shows it as it is
        descriptions.synthetic_warning(data),
        f"{GATE}{verdict}.",
        f"Wide & Deep trained on {made.trained_on} of **{data.dataset.name}** ({len(rows):,} interactions), by "
        f"[this run](#/experiments/{run.experiment_id}/runs/{run.id}), where its model card and figures are.",
    ]
    if made.results is not None:
        parts += [
            "The figures are of the same recipe trained on what comes before the test part "
            f"(split {data.split.method}); this model has {'also ' if made.trained_on == ALL else 'not '}"
            "seen the test part.",
            f"**Result.** {descriptions.result_line(made.results)}",
            f"**Trust.** {descriptions.trust_line(data)}",
            *descriptions.table_of(made.results, run),
        ]
    else:
        parts.append("There was no test part (split=none), so there are no test figures.")
    parts += [descriptions.data_line(data), descriptions.source_line(run), descriptions.shell(commands)]
    return descriptions.joined(parts)


def of_registered_model(name: str, alias: str, commands: Commands) -> str:
    """Of all versions together.  alias: of the one that is served"""
    return descriptions.joined(
        [
            "### Wide & Deep recommender: which items next, and would this user like that one?",
            f"The version with the alias `{alias}` is the one that is served. A new version takes it only where it "
            "beats the champion's recipe, or where that is not worse on new data; each version's description has the "
            "verdict with its figures, its tag `gate` the word. Servers follow the alias by themselves.",
            descriptions.shell(commands),
            f'In Python `mlflow.pyfunc.load_model("models:/{name}@{alias}").predict(frame)` ranks the catalogue for a '
            "column `user_id` or `history`, or gives the probability of a like for pairs of `user_id` and `item_id`. "
            "Each version's data is the file `artifacts/model.pth`: tensors and plain values, nothing in it is run. It "
            "holds the ids and histories of the users, so whoever may read it may read those.",
        ]
    )
