"""An opponent's process, seen from the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from experiments.benchmarks.opponents.child import MARK
from widedeep.errors import WideDeepError

ROOT = Path(__file__).resolve().parents[3]


class OpponentFailed(WideDeepError):
    """An opponent's process ended without an answer."""


class Process:
    """Started at once; answers one request after the other."""

    def __init__(self, name: str, python: Path, module: str, data: Path, threads: int, log: Path) -> None:
        count = str(threads)
        settings = {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OMP_WAIT_POLICY": "passive",  # a thread that spins while it waits would count as work
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.name = name
        self.log = log
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [str(python), "-m", f"experiments.benchmarks.opponents.{module}", str(data), count],
            env=os.environ | settings,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._answer()
        except OpponentFailed:
            self.close()
            raise

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Raises  OpponentFailed"""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed() from error
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line[len(MARK) :])
                return found
        raise self._failed()

    def _failed(self) -> OpponentFailed:
        self._log.flush()
        lines = self.log.read_text().strip().splitlines() or ["no message"]
        return OpponentFailed(f"{self.name}: the process ended, {lines[-1]}")
