"""The experiment in the UI: what it says of itself, and a view of its runs with the columns that matter."""

from __future__ import annotations

import json

from mlflow.tracking import MlflowClient

NOTE = "mlflow.note.content"  # the tag that the UI shows as the description, of runs and of experiments
VIEW = "widedeep"
VIEW_NAME = "The columns that matter"  # in the list of views
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # where the UI keeps a view that somebody saves
TRAINING_VIEW = "workflowType=machine_learning"  # otherwise the UI opens in its view for language models
COLUMNS = (
    "attributes.`Models`",
    "metrics.`ndcg_at_10`",
    "metrics.`recall_at_20`",
    "metrics.`auc`",
    "metrics.`coverage_at_10`",
    "metrics.`validation/ndcg_at_10`",
    "tags.`gate`",
    "tags.`dataset`",
    "tags.`split.method`",
    "tags.`leaks`",
)


def view() -> str:
    """Columns and order of the runs, as the UI itself writes them when somebody saves a view."""
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
    }
    return json.dumps({"name": VIEW_NAME, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def address(experiment_id: str) -> str:
    """Of the runs with those columns, within the UI."""
    return f"#/experiments/{experiment_id}/runs?{TRAINING_VIEW}&viewStateShareKey={VIEW}"


def description(experiment_id: str) -> str:
    return "\n\n".join(
        [
            "Recommenders: trained, judged beside baselines on data that they have not seen, registered where they "
            "are good enough.",
            f"**Start with [the runs and the columns that matter]({address(experiment_id)})**, newest first. "
            "Unfold a run to see its trials. Each run has a description with the result in words, `model_card.md` and "
            "`data_sheet.md` among its artifacts, and the commands that serve it and make it again.",
            "- `ndcg_at_10`: how well the first ten items are ranked on the test part, 0 to 1, higher is better. "
            "Compare it within one data set and split. `ndcg_at_10_low` and `_high` are its 95% interval.\n"
            "- `reference/NAME_ndcg_at_10`: the same of a baseline, of the same run.\n"
            "- `recall_at_20`: share of what a user went on to like that is among the first twenty items.\n"
            "- `auc`, `log_loss`, `calibration_error`: of the probability of a like; the last two are better low.\n"
            "- `coverage_at_10`: share of the catalogue that is in anybody's first ten.\n"
            "- `validation/ndcg_at_10`: what trials are compared by; the search never looks at the test part.\n"
            "- `gate`: `passed` where the version has earned the alias, `refused` where it has not.\n"
            "- `leaks`: what was found on looking for test rows in the training part; `none` is good.",
        ]
    )


def dress(client: MlflowClient, experiment_id: str) -> None:
    """Write what nobody has written yet; the view is ours and kept up to date."""
    there = client.get_experiment(experiment_id).tags
    if not there.get(NOTE):
        client.set_experiment_tag(experiment_id, NOTE, description(experiment_id))
    if there.get(VIEW_TAG) != view():
        client.set_experiment_tag(experiment_id, VIEW_TAG, view())
