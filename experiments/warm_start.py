"""What a new study tries first: the settings as given, the champion's, and the best of earlier studies.

All are tried anew, on the data and with the budget of this search: values of other data say little of these.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from experiments import aliases, promote, spaces
from experiments.jobs import JobConfig
from experiments.progress import Console
from experiments.spaces import Suggest
from experiments.study_config import CHAMPION, StudyConfig, shown
from experiments.trial_record import GIVEN
from widedeep.config import Config
from widedeep.errors import ConfigError, WideDeepError

OF_A_STUDY = 3  # of its best trials

Point = tuple[str, dict[str, Any]]  # where from, and the parameters


def points(
    config: Config,
    job: JobConfig,
    settings: StudyConfig,
    suggest: Suggest,
    storage: BaseStorage,
    console: Console,
) -> list[Point]:
    """Points of the space, none twice.

    Raises  ConfigError: there is no study of that name
    """
    found: list[Point] = [(GIVEN, spaces.nearest(suggest, config))]
    for name in settings.warm_starts:
        if name == CHAMPION:
            found += _of_champion(config, job, suggest, console)
        else:
            found += _of_study(name, config, settings, suggest, storage)
    kept: list[Point] = []
    for origin, params in found:
        if params not in [known for _, known in kept]:
            kept.append((origin, params))
    return kept


def _of_champion(config: Config, job: JobConfig, suggest: Suggest, console: Console) -> list[Point]:
    if not job.register or not job.alias:
        return []
    champion = aliases.aliased(job.register, job.alias)
    if champion is None:
        return []
    try:
        recipe = promote.recipe_of(champion)
    except WideDeepError as error:
        console.say(f"tune: nothing is taken over from {champion}: {error}")
        return []
    wanted = {**vars(recipe.config.train), **vars(recipe.config.model)}
    return [(CHAMPION, spaces.nearest(suggest, config, wanted=wanted))]


def _of_study(
    name: str, config: Config, settings: StudyConfig, suggest: Suggest, storage: BaseStorage
) -> list[Point]:
    names = [
        summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)
    ]
    if name not in names:
        raise ConfigError(
            f"warm_start names a study {name!r} that is not in {shown(settings.storage)}. "
            f"There are: {', '.join(sorted(names)) or 'none'}."
        )
    earlier = optuna.load_study(study_name=name, storage=storage)
    complete = earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = sorted(complete, key=lambda trial: -trial.values[0])[:OF_A_STUDY]
    return [(f"study {name}", spaces.nearest(suggest, config, wanted=trial.params)) for trial in best]
