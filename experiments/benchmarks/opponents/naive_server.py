"""The usual gRPC server: a pool of threads, and one `score_batch` for each request.

python -m experiments.benchmarks.opponents.naive_server BUNDLE PORT
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from widedeep.queries import ScoreQuery
from widedeep.recommender import Recommender


class Naive(pb_grpc.RecommenderServicer):
    def __init__(self, bundle: Path) -> None:
        self.recommender = Recommender.load(bundle, device="cpu")

    def Score(self, request: pb.ScoreRequest, _: grpc.ServicerContext) -> pb.ScoreResponse:
        query = ScoreQuery(request.user_id or None, list(request.item_ids))
        scores = self.recommender.score_batch([query])[0]
        return pb.ScoreResponse(probabilities=scores.probabilities.tolist())


def main(bundle: Path, port: int) -> None:
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_RecommenderServicer_to_server(Naive(bundle), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
