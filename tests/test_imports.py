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
BENCHMARKS = ROOT / "experiments" / "benchmarks"
SERVED = (
    "grpc",
    "server.client",
    "server.pb",
)  # what a benchmark may use: it asks servers, as any client does
OPPONENTS = BENCHMARKS / "opponents"  # some of them are servers, started as processes of their own


def imported(path: Path) -> set[str]:
    """Modules in full: what `from a.b import c` names is a.b.c, which may also be a value in a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def allowed(path: Path, name: str) -> bool:
    """Whether this module may import this in spite of its package's rule."""
    if OPPONENTS in path.parents:
        return True
    return BENCHMARKS in path.parents and any(f"{name}.".startswith(f"{served}.") for served in SERVED)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_against_the_arrows(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[package] and not allowed(path, name)
    }
    assert not found


def test_benchmarks_may_ask_a_server_and_nothing_more() -> None:
    benchmark = BENCHMARKS / "serving.py"
    assert allowed(benchmark, "server.pb.recommender_pb2")
    assert allowed(benchmark, "server.client.Client")
    assert allowed(benchmark, "grpc")
    assert not allowed(benchmark, "server.app")
    assert not allowed(benchmark, "server.pbx")
    assert not allowed(ROOT / "experiments" / "train.py", "grpc")
    assert allowed(OPPONENTS / "empty_server.py", "server.app")


def test_the_library_runs_on_torch_numpy_and_pandas_alone() -> None:
    code = "import sys, widedeep, widedeep.evaluation, widedeep.baselines, widedeep.datasets\n"
    code += f"bad = {HEAVY!r} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_what_watches_over_workers_computes_nothing() -> None:
    code = "import sys, server.__main__\nassert not {'torch', 'pandas', 'mlflow'} & set(sys.modules)"
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
