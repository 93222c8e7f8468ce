"""A registry with versions whose answers are known, a server that follows it, and steady load on that server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from experiments.benchmarks import form, reload_load, reload_versions, survival_server
from experiments.benchmarks.opponents.process import OpponentFailed
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.reload_load import Sent
from experiments.benchmarks.reload_versions import ALIAS, NAME, Versions

GOOD, QUESTIONS = 2, 20
RATE = 10.0  # requests/s by each of four methods
PATIENCE = 120.0  # seconds
MODEL = f"models:/{NAME}@{ALIAS}"

Tell = Callable[[str], None]


def versions_in(folder: Path) -> Versions:
    """Two good versions, the first of them served."""
    found = reload_versions.make(folder, survival_server.SHAPE, GOOD, QUESTIONS)
    found.move(found.good[0])
    return found


def following(versions: Versions, folder: Path, *flags: str, **given: object) -> Target:
    """A server of MODEL, not yet started."""
    where = () if "--tracking-uri" in flags else ("--tracking-uri", versions.uri)
    cache = () if "--cache-dir" in flags else ("--cache-dir", str(folder / "cache"))
    usual = ("--poll-seconds", "0.5", "--precision", "float32")  # in which the answers are known
    return survival_server.target(MODEL, folder, *where, *cache, *usual, *flags, **given)  # type: ignore[arg-type]


class Steady:
    """`with Steady(…) as load:` all four methods in the block; `load.sent` after it."""

    def __init__(self, target: Target, versions: Versions, rate: float = RATE) -> None:
        self._load = reload_load.Load(target.port, versions.questions, versions.answers, rate)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._load.run, args=(self._stop,))
        self.phases: list[tuple[str, float]] = []

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def sent(self) -> list[Sent]:
        return self._load.sent

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is due from here until the next phase is of this one."""
        self.phases.append((name, time.monotonic()))
        yield

    def report(self, report: form.Report, name: str) -> None:
        """Counts, and the p99 of each phase."""
        lost = [one for one in self.sent if one.fault]
        report.add(name, "requests", len(self.sent), "")
        report.add(name, "requests lost or answered wrongly", len(lost), "")
        report.notes += sorted({f"{name}: {one.method}: {one.fault}" for one in lost})[:5]
        ends = [start for _, start in self.phases[1:]] + [float("inf")]
        for (phase, start), end in zip(self.phases, ends, strict=True):
            seconds = [
                one.seconds for one in self.sent if start <= one.due < end and not np.isnan(one.seconds)
            ]
            if seconds:
                report.add(name, f"p99, {phase}", 1e3 * float(np.quantile(seconds, 0.99)), "ms")


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Seconds until it holds.  Raises  OpponentFailed"""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise OpponentFailed(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - start


def serves(target: Target, version: str) -> Callable[[], bool]:
    return lambda: survival_server.served(target).model.version == version


def files_in(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
