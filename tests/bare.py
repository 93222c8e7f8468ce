"""A Python that has torch, numpy and pandas and nothing else: a GPU machine as it is rented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MISSING = [
    "google",
    "grpc",
    "matplotlib",
    "mlflow",
    "optuna",
    "psutil",
    "pyarrow",
    "requests",
    "scipy",
    "sklearn",
    "tqdm",
]
REFUSE = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that cannot import what is MISSING."""
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", REFUSE + code], capture_output=True, text=True, check=False, cwd=root
    )
