"""Small real gRPC servers for what the product's server cannot be brought to do to a client."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from serving import Running

from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc


def calls_in_flight(server: Running) -> int:
    return server.server.calls.active


class Servicer(pb_grpc.RecommenderServicer):
    """GetModel and ScoreStream as given; it keeps each call's metadata."""

    def __init__(
        self,
        get_model: Callable[[Any], pb.GetModelResponse] = lambda _: pb.GetModelResponse(dataset="small"),
        score_stream: Callable[[Iterator[Any]], Iterator[Any]] = iter,
    ) -> None:
        self.get_model = get_model
        self.score_stream = score_stream
        self.metadata: list[dict[str, Any]] = []

    def GetModel(self, _: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        return self.get_model(context)

    def ScoreStream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.metadata.append(dict(context.invocation_metadata()))
        yield from self.score_stream(requests)


@contextmanager
def serving(servicer: Servicer, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """The address of a server on a free port."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_RecommenderServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@dataclass(frozen=True)
class Certificate:
    """PEM files. It signs itself, so it is its own root."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> Certificate:
        made = cls(folder / f"{name}.pem", folder / f"{name}.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(made.key), "-out", str(made.cert)],
            check=True, capture_output=True,
        )  # fmt: skip
        return made

    @property
    def pair(self) -> tuple[bytes, bytes]:
        return self.key.read_bytes(), self.cert.read_bytes()
