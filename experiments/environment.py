"""Where a job ran: versions, machine, device, and the state of the source."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("widedeep", "torch", "mlflow", "optuna", "numpy", "pandas", "pyarrow", "grpcio", "protobuf")
MODEL_PACKAGES = ("torch", "numpy", "pandas", "mlflow")  # what the registered model needs to be loaded
ROOT = Path(__file__).resolve().parent.parent


def version(package: str) -> str:
    """Its version, without the build that the local machine has of it (2.13.0+cpu is 2.13.0)."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def requirements() -> list[str]:
    """What pip has to install where the registered model is served."""
    return [f"{package}=={version(package)}" for package in MODEL_PACKAGES]


def describe() -> dict[str, Any]:
    """Plain Python for the run's environment.json."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {package: version(package) for package in PACKAGES},
        "build": {"torch": torch.__version__},
        "command": sys.argv,
    }


def commit() -> str:
    """The git commit of the source, with '-dirty' after it where files differ; empty where there is none."""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
