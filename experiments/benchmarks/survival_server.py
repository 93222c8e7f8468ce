"""The server that a survival run is done to, as a process of its own, and what is seen of it from outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import psutil

from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target, free_ports
from experiments.benchmarks.serving_load import ask
from experiments.benchmarks.serving_targets import SERVICE
from server.pb import recommender_pb2 as pb

SHAPE = (300, 200, 9000)  # users, items, interactions
MEGABYTE = 2**20


def target(model: str, folder: Path, *flags: str, port: int = 0, before: Sequence[str] = ()) -> Target:
    """Not yet started.  before  a command that starts the server, such as one that limits it"""
    port = port or free_ports(1)[0]
    command = [
        *before,
        sys.executable,
        "-m",
        "server",
        "--model",
        model,
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    log = folder / f"server-{port}.log"
    return Target("ours", [*command, *flags], port, f"{SERVICE}GetModel", lambda *_: b"", log=log)


def started(found: Target) -> Target:
    """Started, and answering.  Raises  OpponentFailed"""
    found.start()
    try:
        found.await_answer(lambda: ask(found, b""))
    except OpponentFailed:
        found.stop()
        raise
    return found


def resident(found: Target) -> float:
    """MiB that the process holds."""
    return float(psutil.Process(found.pid).memory_info().rss) / MEGABYTE


def served(found: Target) -> pb.GetModelResponse:
    answer: pb.GetModelResponse = pb.GetModelResponse.FromString(ask(found, b""))
    return answer


def leases(found: Target) -> int:
    """Requests and streams that hold any model, the question itself left out."""
    raw = ask(found, b"", f"{SERVICE}ListModels")
    return sum(model.lease_count for model in pb.ListModelsResponse.FromString(raw).models)


def complaints(found: Target) -> list[str]:
    """Lines of the log that a server in good health does not write."""
    return [
        line
        for line in found.log.read_text(errors="replace").splitlines()
        if "Traceback" in line or "internal error" in line or " CRITICAL " in line or "rror: " in line[:60]
    ]


def channel(found: Target) -> grpc.aio.Channel:
    options = [("grpc.max_receive_message_length", 64 * MEGABYTE)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{found.port}", options=options)
