"""The arrows: experiments -> widedeep <- server -> server.pb, and what each may import besides."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import bare
import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"mlflow", "optuna", "grpc", "google", "matplotlib", "sklearn", "scipy", "psutil"}
FORBIDDEN = {
    "widedeep": {"experiments", "server", *HEAVY},
    "experiments": {"server", "grpc"},
    "server": {"experiments", "optuna", "matplotlib"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_against_the_arrows(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path) & FORBIDDEN[package]
    }
    assert not found


def test_the_library_runs_on_torch_numpy_and_pandas_alone() -> None:
    code = "import sys, widedeep, widedeep.evaluation, widedeep.baselines, widedeep.datasets\n"
    code += f"bad = {HEAVY!r} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_library_needs_pyarrow_for_files_alone() -> None:
    code = "import widedeep, widedeep.evaluation, widedeep.training\n"
    code += "from widedeep import datasets\n"
    code += "found = datasets.load(widedeep.DataConfig(dataset='synthetic', users=20, items=20, interactions=200))\n"
    code += "print(len(found.interactions))"
    done = bare.run(code)
    assert done.stdout == "200\n", done.stderr


def test_modules_stay_small() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {lines}"
        for package in (*FORBIDDEN, "examples")
        for path in (ROOT / package).rglob("*.py")
        if "pb" not in path.parts and (lines := len(path.read_text().splitlines())) > 300
    }
    assert not long
