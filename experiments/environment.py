"""Where a job ran: versions, machine, device, and the state of the source."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from experiments import source_state

PACKAGES = ("widedeep", "torch", "mlflow", "optuna", "numpy", "pandas", "pyarrow", "grpcio", "protobuf")
MODEL_PACKAGES = ("torch", "numpy", "pandas", "mlflow")  # what the registered model needs to be loaded


def version(package: str) -> str:
    """Its version, without the build that the local machine has of it (2.13.0+cpu is 2.13.0)."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def requirements() -> list[str]:
    """What pip has to install where the registered model is served."""
    return [f"{package}=={version(package)}" for package in MODEL_PACKAGES]


def processor() -> str:
    """The CPU as the system names it; where it has numbers, too, with them: virtual machines shorten the name."""
    named: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            named.setdefault(key.strip(), value.strip())
    if "model name" not in named:
        return platform.processor() or platform.machine()
    numbers = [f"{key} {named[key]}" for key in ("cpu family", "model", "stepping") if key in named]
    return f"{named['model name']} ({', '.join(numbers)})" if numbers else named["model name"]


def describe() -> dict[str, Any]:
    """Plain Python for the run's environment.json."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {package: version(package) for package in PACKAGES},
        "build": {"torch": torch.__version__},
        "source": source_state.current().to_dict(),
        "command": sys.argv,
    }
