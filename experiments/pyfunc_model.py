"""The registered model as MLflow's pyfunc flavour: ids in, titles and scores out.

MLflow runs this file when it loads the model ("models from code"), with the `widedeep` package that was saved
beside it, so nothing of the project needs to be installed and nothing is unpickled.

    model = mlflow.pyfunc.load_model("models:/widedeep@champion")
    model.predict(pd.DataFrame({"user_id": ["1", "2"]}), params={"k": 5})
    model.predict(pd.DataFrame({"history": [["1", "50"]]}))                      # someone new
    model.predict(pd.DataFrame({"user_id": ["1"], "item_id": ["50"]}))           # probability of a like
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from widedeep.errors import RequestError
from widedeep.queries import Query, ScoreQuery
from widedeep.recommender import Recommender

DEFAULTS = {"k": 10, "exclude_seen": True}


class WideDeepModel(PythonModel):
    """`predict` ranks the catalogue, or rates pairs where there is a column item_id."""

    def load_context(self, context: Any) -> None:
        self.recommender = Recommender.load(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a recommendation, or one row a pair.

        model_input  user_id (text), and if wanted: history (list of item ids, oldest first, in place of what is
                     stored of the user), k (whole number), item_id (text)
        params       k and exclude_seen for rows without their own
        Returns      user_id, item_id, rank from 1, score, title; with item_id in the input the same rows in
                     the same order, score the probability of a like, and no rank
        Raises       MlflowException (HTTP 400): a value that cannot be answered
        """
        del context
        rows = _rows(model_input)
        try:
            return (
                self._probabilities(rows) if "item_id" in model_input else self._rankings(rows, params or {})
            )
        except RequestError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error

    def _rankings(self, rows: list[dict[str, Any]], params: dict[str, Any]) -> pd.DataFrame:
        rows = [DEFAULTS | params | row for row in rows]
        answers = self.recommender.rank(
            [
                Query(
                    user_id=row.get("user_id"),
                    k=int(row["k"]),
                    exclude_seen=bool(row["exclude_seen"]),
                    history=row.get("history"),
                )
                for row in rows
            ]
        )
        return pd.DataFrame(
            [
                (row.get("user_id"), str(item), place, score, title)
                for row, answer in zip(rows, answers, strict=True)
                for place, (item, score, title) in enumerate(
                    zip(answer.item_ids, answer.scores, self._titles(answer.item_ids), strict=True), 1
                )
            ],
            columns=["user_id", "item_id", "rank", "score", "title"],
        )

    def _probabilities(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        queries = [ScoreQuery(row.get("user_id"), [row.get("item_id")], row.get("history")) for row in rows]
        answers = self.recommender.score_batch(queries) if queries else []
        items = [row.get("item_id") for row in rows]
        return pd.DataFrame(
            {
                "user_id": [row.get("user_id") for row in rows],
                "item_id": [str(item) for item in items],
                "score": [float(answer.probabilities[0]) for answer in answers],
                "title": self._titles(items),
            }
        )

    def _titles(self, item_ids: list[Any]) -> list[str]:
        return self.recommender.item_titles(item_ids) if item_ids else []


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows without what is missing in them."""
    if not {"user_id", "history"} & set(frame.columns):
        raise MlflowException(
            f"The input needs a column user_id or history; it has: {', '.join(map(str, frame.columns)) or 'none'}.",
            error_code=INVALID_PARAMETER_VALUE,
        )
    for name in {"user_id", "item_id"} & set(frame.columns):
        lists = [value for value in frame[name] if not pd.api.types.is_scalar(value)]
        if (
            lists
        ):  # MLflow makes one row of {"inputs": {"user_id": ["1", "2"]}}, and its schema lets that pass
            raise MlflowException(
                f"{name} must be one id a row, got {lists[0]!r}. Over HTTP send dataframe_split or dataframe_records.",
                error_code=INVALID_PARAMETER_VALUE,
            )
    return [
        {name: value for name, value in row.items() if not _is_missing(value)}
        for row in frame.to_dict("records")
    ]


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


mlflow.models.set_model(WideDeepModel())
