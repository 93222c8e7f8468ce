"""TensorBoard's files, read back by its own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Series = dict[str, list[tuple[int, np.float32]]]  # name -> steps and values


def in_files(folder: Path) -> Series:
    """The scalars of one run."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: [(event.step, np.float32(event.value)) for event in found.Scalars(name)] for name in names}


def in_mlflow(client: MlflowClient, run_id: str) -> Series:
    """What MLflow has, but for the samples of the machine, which MLflow takes by itself."""
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
    return {
        name: [(point.step, np.float32(point.value)) for point in client.get_metric_history(run_id, name)]
        for name in names
    }


def are_equal(client: MlflowClient, run_id: str, folder: Path) -> bool:
    """Equal names, steps and values, of which there are some."""
    scalars = in_files(folder)
    assert scalars == in_mlflow(client, run_id)
    return len(scalars) > 0
