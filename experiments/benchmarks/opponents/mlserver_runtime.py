"""The bundle behind MLServer's gRPC: inputs user_id and item_ids in, probabilities out. Runs in its environment.

    python -m experiments.benchmarks.opponents.mlserver_runtime FOLDER BUNDLE GRPC_PORT HTTP_PORT METRICS_PORT
    python -m experiments.benchmarks.opponents.mlserver_runtime request USER ITEM…

The first writes the settings that `mlserver start FOLDER` reads, the second the bytes of a request, in hexadecimal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.types import InferenceRequest, InferenceResponse

from widedeep.recommender import Recommender

NAME = "scorer"


class Scorer(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.recommender = Recommender.load(self.settings.parameters.uri, device="cpu")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        user, items = (StringCodec.decode_input(part) for part in payload.inputs)
        probabilities = self.recommender.score(user[0], items)
        output = NumpyCodec.encode_output("probabilities", probabilities)
        return InferenceResponse(model_name=self.name, outputs=[output])


def write_settings(folder: Path, bundle: str, grpc_port: int, http_port: int, metrics_port: int) -> None:
    """One process, no second one for inference: less work for the same answer."""
    server = {
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": NAME,
        "implementation": f"{__spec__.name}.{Scorer.__name__}",
        "parameters": {"uri": bundle},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


def request(user: str, items: list[str]) -> bytes:
    inputs = [StringCodec.encode_input("user_id", [user]), StringCodec.encode_input("item_ids", items)]
    message = ModelInferRequestConverter.from_types(InferenceRequest(inputs=inputs), model_name=NAME)
    found: bytes = message.SerializeToString()
    return found


if __name__ == "__main__":
    if sys.argv[1] == "request":
        print(request(sys.argv[2], sys.argv[3:]).hex())
    else:
        write_settings(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
