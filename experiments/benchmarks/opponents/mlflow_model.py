"""The bundle as an MLflow model for `mlflow models serve`: rows of user_id and item_id in, probabilities out.

python -m experiments.benchmarks.opponents.mlflow_model BUNDLE FOLDER     # save it for serving

All rows of a request are one user's, so it scores them in one go, which the registered model, whose rows may be of
many users, does not.
"""

from __future__ import annotations

import sys
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from widedeep.recommender import Recommender


class Scorer(PythonModel):
    def load_context(self, context: Any) -> None:
        self.recommender = Recommender.load(context.artifacts["model"], device="cpu")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[float]:
        del context, params
        user, items = model_input["user_id"].iloc[0], model_input["item_id"].tolist()
        probabilities: list[float] = self.recommender.score(user, items).tolist()
        return probabilities


if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[2], python_model=__file__, artifacts={"model": sys.argv[1]}, pip_requirements=["mlflow"]
    )
else:
    mlflow.models.set_model(Scorer())
