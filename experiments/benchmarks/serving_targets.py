"""Ours and what a user would pick instead: how each server is started, and what a `Score` is to it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.benchmarks.opponents import environments
from experiments.benchmarks.opponents.servers import Target, free_ports, module, run_once
from server.pb import recommender_pb2 as pb

SERVICE = "/widedeep.v1.Recommender/"
V2 = "/inference.GRPCInferenceService/ModelInfer"
PATIENT = ["--max-wait", "3600"]  # it is speed that is measured: nothing is to be refused
OPPONENTS = ("mlflow", "mlserver", "naive")


def score_request(user: str, items: list[str]) -> bytes:
    found: bytes = pb.ScoreRequest(user_id=user, item_ids=items).SerializeToString()
    return found


def ours(bundle: Path, folder: Path, name: str = "ours") -> Target:
    """`python -m server`, or with its model removed for the name "empty"."""
    (port,) = free_ports(1)
    start = [sys.executable, "-m", "server"] if name == "ours" else module("empty_server")
    flags = ["--model", str(bundle), "--port", str(port), "--device", "cpu", "--log-level", "warning"]
    flags += PATIENT
    return Target(name, start + flags, port, f"{SERVICE}Score", score_request, log=folder / f"{name}.log")


def opponent(name: str, bundle: Path, folder: Path, envs: Path, tell: Callable[[str], None]) -> Target:
    """Raises  EnvironmentMissing, OpponentFailed"""
    return {"naive": _naive, "mlflow": _mlflow, "mlserver": _mlserver}[name](bundle, folder, envs, tell)


def _naive(bundle: Path, folder: Path, envs: Path, tell: Callable[[str], None]) -> Target:
    del envs, tell
    (port,) = free_ports(1)
    command = [*module("naive_server"), str(bundle), str(port)]
    return Target("naive", command, port, f"{SERVICE}Score", score_request, log=folder / "naive.log")


def _mlflow(bundle: Path, folder: Path, envs: Path, tell: Callable[[str], None]) -> Target:
    """In our environment: MLflow is one of our dependencies."""
    del envs
    model = folder / "mlflow-model"
    shutil.rmtree(model, ignore_errors=True)
    tell("mlflow: saving the model")
    run_once("mlflow", [*module("mlflow_model"), str(bundle), str(model)])
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-h", "127.0.0.1"]
    command += ["-p", str(port), "--workers", "1", "--env-manager", "local"]

    def request(user: str, items: list[str]) -> bytes:
        rows = {"columns": ["user_id", "item_id"], "data": [[user, item] for item in items]}
        return json.dumps({"dataframe_split": rows}).encode()

    return Target("mlflow", command, port, "/invocations", request, True, folder / "mlflow.log")


def _mlserver(bundle: Path, folder: Path, envs: Path, tell: Callable[[str], None]) -> Target:
    python = str(environments.python_of("mlserver", envs, tell))
    runtime = [python, "-m", "experiments.benchmarks.opponents.mlserver_runtime"]
    ports, place = free_ports(3), folder / "mlserver-model"
    run_once("mlserver", [*runtime, str(place), str(bundle), *map(str, ports)])
    command = [str(Path(python).with_name("mlserver")), "start", str(place)]

    def request(user: str, items: list[str]) -> bytes:
        return bytes.fromhex(run_once("mlserver", [*runtime, "request", user, *items]).split()[-1])

    return Target("mlserver", command, ports[0], V2, request, log=folder / "mlserver.log")
