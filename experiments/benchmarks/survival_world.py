"""What happens around a server: the disk is full, the clock jumps, the tracking server is slow, wrong or away."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from experiments.benchmarks import form, survival_server
from experiments.benchmarks.opponents.servers import Target
from experiments.benchmarks.reload_versions import Versions
from experiments.benchmarks.survival_load import (
    Steady,
    Tell,
    files_in,
    following,
    serves,
    until,
    versions_in,
)
from experiments.benchmarks.survival_tracking import LATE, MODES, Tracking

FULL = 32 * 1024  # bytes: a file can have no more, where the disk is full
JUMPS = (6 * 3600, -12 * 3600, 300 * 86_400, 0)  # seconds that the clock is off
LEAPS = (3600, 12 * 3600)  # likewise of the monotonic clock, which never goes back
SHORT_PATIENCE = 1  # seconds that the server's MLflow waits for the tracking server, where the run is quick
DELAY = 30.0  # seconds until a slow tracking server answers


def disk(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """No file can grow beyond a few bytes while the alias moves; then it can again.

    Raises  OpponentFailed: the server does not serve on, or does not recover
    """
    versions = versions_in(folder)
    cache = folder / "cache"
    target = survival_server.started(following(versions, folder))
    try:
        with Steady(target, versions) as load:
            with load.phase("before"):
                time.sleep(1 if quick else 10)
            kept = files_in(cache)
            _, hard = resource.prlimit(target.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(target.pid, resource.RLIMIT_FSIZE, (FULL, hard))
            with load.phase("the disk is full"):
                versions.move(versions.good[1])
                until(
                    lambda: not survival_server.served(target).registry.reachable,
                    "the server does not say that it cannot have the model",
                )
                time.sleep(1 if quick else 10)
            half_written = set(files_in(cache)) - set(kept)
            still = survival_server.served(target).model.version == versions.good[0]
            resource.prlimit(target.pid, resource.RLIMIT_FSIZE, (hard, hard))
            with load.phase("there is room again"):
                took = until(serves(target, versions.good[1]), "the new version is not served")
            time.sleep(1)
        load.report(report, "disk")
        report.add("disk", "files half-written in the cache", len(half_written), "")
        report.add("disk", "the served version was served on", int(still), "")
        report.add("disk", "from there being room to serving the new version", took, "s")
        report.add("disk", "whole files in the cache after it", len(files_in(cache)), "")
        _no_complaints(report, "disk", target)
    finally:
        target.stop()
    _full_cache(report, versions, folder, tell)


def _full_cache(report: form.Report, versions: Versions, folder: Path, tell: Tell) -> None:
    """The cache alone is full: on a file system of its own, which only root can make."""
    full = folder / "full"
    full.mkdir()
    done = None
    if shutil.which("mount") and os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done is None or done.returncode:
        report.notes.append("disk: a full file system for the cache alone was not tried, which needs root.")
        return
    try:
        target = survival_server.started(following(versions, folder, "--cache-dir", str(full)))
        try:
            report.add("full cache", "serves all the same", int(serves(target, versions.good[1])()), "")
            report.add("full cache", "files half-written in the cache", len(files_in(full)), "")
            log = target.log.read_text()
            report.add("full cache", "says so in the log", int("was not cached" in log), "")
            _no_complaints(report, "full cache", target)
        finally:
            target.stop()
    finally:
        subprocess.run(["umount", "-l", str(full)], check=True)
    tell("the full cache was served from all the same")


def clock(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """The wall clock jumps back and forth; then the monotonic clock leaps ahead with it, as after a suspension.

    Raises  OpponentFailed: the server follows no longer
    """
    faketime = shutil.which("faketime")
    if faketime is None:
        report.notes.append(
            "clock: not tried, as it needs faketime (Debian and Ubuntu: apt-get install faketime)."
        )
        return
    versions = versions_in(folder)
    for monotonic in (False, True):
        name = "clock, the monotonic one too" if monotonic else "clock"
        offset = folder / f"offset-{monotonic}"
        offset.write_text("+0")
        settings = [f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_CACHE_DURATION=1", "NO_FAKE_STAT=1"]
        # Threads wait on the monotonic clock: their waits must be shifted as it is, or Python's would never end.
        settings.append(f"FAKETIME_FORCE_MONOTONIC_FIX={int(monotonic)}")
        if not monotonic:
            settings.append("FAKETIME_DONT_FAKE_MONOTONIC=1")
        # faketime itself only says where its library is: with a time of its own it would not look into the file.
        preload = subprocess.run(
            [faketime, "-m", "-f", "+0", "env"], capture_output=True, text=True, check=True
        ).stdout
        settings += [line for line in preload.splitlines() if line.startswith("LD_PRELOAD=")]
        versions.move(versions.good[0])
        target = following(versions, folder, before=("env", *settings))
        survival_server.started(target)
        try:
            took = []
            with Steady(target, versions) as load:
                with load.phase("before"):
                    time.sleep(2 if quick else 10)
                jumps = LEAPS if monotonic else JUMPS
                for number, jump in enumerate(jumps[:2] if quick else jumps):
                    with load.phase(f"{jump / 3600:+g} h"):
                        offset.write_text(f"{jump:+d}")
                        time.sleep(2 if quick else 5)
                        version = versions.good[(number + 1) % len(versions.good)]
                        versions.move(version)
                        took.append(until(serves(target, version), f"{name}: the alias is not followed"))
                        tell(f"{name} {jump:+d} s: followed after {took[-1]:.1f} s")
                        time.sleep(1 if quick else 10)
            load.report(report, name)
            report.add(name, "jumps", len(took), "")
            report.add(name, "from the move of the alias to its version, longest", max(took), "s")
            _no_complaints(report, name, target)
        finally:
            target.stop()


def tracking(report: form.Report, quick: bool, folder: Path, tell: Tell) -> None:
    """Raises  OpponentFailed: the server does not say so, or does not recover"""
    versions = versions_in(folder)
    modes = ("html", "cut off", "silent", "refused") if quick else MODES
    before = ("env", f"MLFLOW_HTTP_REQUEST_TIMEOUT={SHORT_PATIENCE}") if quick else ()
    with Tracking(versions, DELAY) as registry:
        target = survival_server.started(
            following(versions, folder, "--tracking-uri", registry.uri, before=before)
        )
        try:
            said, back, unhealthy = [], [], 0
            with Steady(target, versions) as load:
                with load.phase("before"):
                    time.sleep(1 if quick else 10)
                for mode in modes:
                    with load.phase(mode):
                        registry.become(mode)
                        said.append(
                            until(lambda: not _reachable(target), f"{mode}: the server does not say so")
                        )
                        time.sleep(0.5 if quick else DELAY + 5 if mode in LATE else 5)
                        unhealthy += not _is_serving(target)
                    with load.phase(f"after {mode}"):
                        registry.become("")
                        back.append(until(lambda: _reachable(target), f"{mode}: the server does not recover"))
                        tell(f"{mode}: said after {said[-1]:.1f} s, recovered after {back[-1]:.1f} s")
                refused = _wrong_digest(target, registry, versions.good)
            load.report(report, "tracking")
            report.add("tracking", "ways to fail", len(modes), "")
            report.add("tracking", "until the server said so, median", statistics.median(said), "s")
            report.add("tracking", "until the server said so, longest", max(said), "s")
            report.add("tracking", "until it had recovered, longest", max(back), "s")
            report.add("tracking", "times that health was not SERVING", unhealthy, "")
            report.add("tracking", "versions refused for their digest", refused, "")
            _no_complaints(report, "tracking", target)
        finally:
            target.stop()


def _wrong_digest(target: Target, registry: Tracking, good: list[str]) -> int:
    """Versions refused; the first of `good` is served before it, and the second at the end."""
    registry.digest, registry.served = "0" * 64, good[1]
    until(lambda: survival_server.served(target).registry.refused_count > 0, "a wrong digest is not refused")
    refused = survival_server.served(target).registry.refused_count
    registry.digest = ""
    until(serves(target, good[1]), "the version is not served when its digest is right")
    return refused


def _reachable(target: Target) -> bool:
    registry = survival_server.served(target).registry
    return registry.reachable and not registry.error


def _is_serving(target: Target) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        found = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
    return bool(found.status == health_pb2.HealthCheckResponse.SERVING)


def _no_complaints(report: form.Report, name: str, target: Target) -> None:
    complaints = survival_server.complaints(target)
    report.add(name, "tracebacks and internal errors in the log", len(complaints), "")
    report.notes += [f"{name}: log: {line:.300}" for line in complaints[:5]]
