"""A search in words: the table of its trials, and what won."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments import report
from experiments.objectives import LABELS
from experiments.trial_record import GIVEN, TrialRecord

if TYPE_CHECKING:
    from experiments.tune import Search


def table(search: Search) -> list[list[str]]:
    """A row for each trial; with several objectives the trials that none surpasses in all of them are marked."""
    names = list(dict.fromkeys(name for attempt in search.attempts for name in attempt.params))
    others = [LABELS[name] for name in search.objectives[1:]]
    pareto = search.pareto
    lines = [["trial", f"validation {LABELS['ndcg']}", *others, "state", *names]]
    for attempt in search.attempts:
        state = attempt.state.lower()
        cells = [f"{value:.4g}" for value in attempt.values[1:]]
        lines.append(
            [
                str(attempt.number + 1),
                "–" if attempt.value is None else f"{attempt.value:.4f}",
                *(cells or ["–"] * len(others)),
                f"{state}, Pareto" if attempt.number in pareto else state,
                *(report.setting_text(attempt.params.get(name, "–")) for name in names),
            ]
        )
    return lines


def line(search: Search) -> str:
    gain = search.gain
    best = search.best.number + 1
    if len(search.attempts) == 1:
        return "There was one trial, the settings as given."
    if len(search.objectives) > 1:
        several = ", ".join(str(number + 1) for number in sorted(search.pareto))
        return (
            f"Trial {best} was the best by {LABELS['ndcg']}, by which a model is registered. None surpasses in "
            f"{' and '.join(LABELS[name] for name in search.objectives)} at once: trials {several}."
        )
    if search.best.origin == GIVEN:
        return f"None of the {len(search.attempts)} trials was better than the settings as given."
    if gain is None:
        return f"Trial {best} was the best."
    return f"Trial {best} was the best: validation NDCG@10 {gain:+.4f} against the settings as given."


def of_trial(trial: TrialRecord) -> str:
    """Of one trial: how it went, its settings, and what it belongs to."""
    value = trial.metrics.get("validation/ndcg_at_10")
    found = "no figure" if value is None else f"validation NDCG@10 {value:.4f}"
    how = ""
    if trial.state == "PRUNED":
        epoch = trial.tags.get("trial.pruned_at")
        how = f", pruned {f'at epoch {epoch}' if epoch else 'early'}: it fell behind the others"
    elif trial.state == "FAIL":
        how = f", failed: {trial.tags.get('trial.error') or 'its process ended'}"
    origin = trial.tags.get("trial.origin", GIVEN if trial.number == 1 else "")
    why = {GIVEN: "the settings as given", "": "suggested by the search"}.get(origin, f"from {origin}")
    study = f" of the study `{trial.tags['optuna.study']}`" if "optuna.study" in trial.tags else ""
    return "\n\n".join(
        [
            f"### Trial {trial.number}: {found}{how}",
            f"**Settings** ({why}): {report.settings_text(dict(trial.params))}.",
            f"Trial {trial.number}{study}, {report.duration(trial.seconds)}, judged on the validation part alone. The "
            "run that it belongs to is under *Parent run*.",
        ]
    )
