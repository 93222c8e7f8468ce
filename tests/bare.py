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
HIDE = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name.split(".")[0] in {MISSING!r} else find(name, path, target)
PathFinder.find_spec = find_others
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that does not find what is MISSING."""
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", HIDE + code], capture_output=True, text=True, check=False, cwd=root
    )
