"""The data set as MLflow lists it among a run's inputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset as MlflowDataset
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from widedeep.datasets import Dataset

DIGEST_LENGTH = 36  # what MLflow's store has room for


class InteractionsDataset(MlflowDataset):
    """Name, digest, columns and counts; the rows stay where they are."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        super().__init__(source=CodeDatasetSource(tags={"source": data.source}), name=data.name)

    def _compute_digest(self) -> str:
        return self._data.digest[:DIGEST_LENGTH]

    @property
    def schema(self) -> Schema:
        rows = self._data.interactions

        def kind(column: np.ndarray) -> DataType:
            return DataType.string if column.dtype == object else DataType.long

        columns: list[ColSpec | TensorSpec] = [
            ColSpec(kind(rows.user_id), "user_id"),
            ColSpec(kind(rows.item_id), "item_id"),
        ]
        if rows.rating is not None:
            columns.append(ColSpec(DataType.float, "rating"))
        if rows.timestamp is not None:
            columns.append(ColSpec(DataType.long, "timestamp"))
        return Schema(columns)

    @property
    def profile(self) -> dict[str, Any]:
        rows = self._data.interactions
        found: dict[str, Any] = {
            "num_rows": len(rows),
            "users": len(np.unique(rows.user_id)),
            "items": len(np.unique(rows.item_id)),
            "sha256": self._data.digest,
        }
        if rows.timestamp is not None:
            found["first_timestamp"] = int(rows.timestamp.min())
            found["last_timestamp"] = int(rows.timestamp.max())
        return found

    def to_dict(self) -> dict[str, str]:
        values: dict[str, str] = super().to_dict()
        values["schema"] = json.dumps({"mlflow_colspec": self.schema.to_dict()})
        values["profile"] = json.dumps(self.profile)
        return values
