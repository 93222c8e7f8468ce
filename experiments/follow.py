"""What the processes of a training but the first do: its fits, and nothing that is seen.

torchrun --nproc-per-node 2 -m experiments train --dataset ml-latest-small --checkpoint model.ckpt
"""

from __future__ import annotations

from experiments import recipe
from experiments.jobs import JobConfig
from experiments.progress import Silent
from experiments.recipe import Prepared, on_data
from widedeep.config import Config
from widedeep.distributed import World
from widedeep.errors import DataError


def job(config: Config, job_config: JobConfig, world: World) -> None:
    """The fits of `train.job`, in the same order: selection, before the test part, refit."""
    data = _data_of_first(config, world)
    chosen = recipe.select(on_data(config, data.config), data).recipe
    if len(data.split.test):
        recipe.fit_before_test(chosen, data)
        if not job_config.refit:
            return
    recipe.refit(chosen, data)


def _data_of_first(config: Config, world: World) -> Prepared:
    """Read after the first process, which may have to download it."""
    digest = world.first(lambda: "")
    data = recipe.prepare(config.data, Silent())
    if data.dataset.digest != digest:
        raise DataError(
            f"Rank {world.rank} has read other data than rank 0: digest {data.dataset.digest[:16]}, not {digest[:16]}. "
            "Give all processes the same files."
        )
    return data
