"""The opponents' Python environments, made by need and kept: ours does not hold what only a comparison needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from widedeep.errors import WideDeepError

LIMIT = 1800  # seconds for one installation

# Lists of packages, each a command of pip: what is not resolved, because it would bring a CUDA build, comes last.
PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "keras": (("tensorflow-cpu==2.21.0", "keras==3.15.1"),),
    "mlserver": (("torch==2.13.0", "pandas==3.1.1", "mlserver==1.7.1"),),
    "pytorch-widedeep": (
        (
            "torch==2.13.0",
            "pandas<3",
            "scikit-learn",
            "scipy",
            "tqdm",
            "wrapt",
            "pillow",
            "einops",
            "torchmetrics",
            "gensim",
            "spacy",
            "opencv-contrib-python-headless",
            "fastparquet",
            "pyarrow",
            "sentencepiece",
            "sentence-transformers",
            "transformers",
        ),
        ("--no-deps", "torchvision==0.28.0"),
        ("--no-deps", "pytorch-widedeep==1.7.0"),
    ),
}


class EnvironmentMissing(WideDeepError):
    """An opponent's environment could not be made."""


def python_of(name: str, folder: Path, tell: Callable[[str], None]) -> Path:
    """The interpreter of an opponent's environment in `folder`, which is made if it is not there.

    Raises  EnvironmentMissing: no network, or an installation that failed
    """
    environment = folder / name
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    marker = environment / "installed.txt"
    wanted = "\n".join(" ".join(packages) for packages in PACKAGES[name])
    if marker.exists() and marker.read_text() == wanted:
        return python
    tell(f"{name}: installing into {environment}")
    shutil.rmtree(environment, ignore_errors=True)
    _run(name, [sys.executable, "-m", "venv", str(environment)])
    for packages in PACKAGES[name]:
        _run(name, [str(python), "-m", "pip", "install", "--quiet", *packages])
    marker.write_text(wanted)
    return python


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentMissing(f"{name}: no environment, {error}.") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise EnvironmentMissing(f"{name}: no environment, `{' '.join(command[-3:])}` ended with: {last}")
