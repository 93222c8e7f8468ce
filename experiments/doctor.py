"""Say which device will be used and why, what there is beside it, and how fast it is.

python -m experiments doctor
python -m experiments doctor --device cuda --speed false
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import torch

from experiments import diagnosis, environment, speed
from experiments.diagnosis import Situation
from experiments.progress import Console
from widedeep.device import resolve_device, resolve_precision

GIBIBYTE = 2**30
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def job(device: str, *, test_speed: bool, console: Console) -> None:
    """Print what there is to say.

    Raises  DeviceError, ConfigError: the device that was asked for is not usable, after everything has been said
    """
    situation = diagnosis.look()
    _print("Device", [("will be used", diagnosis.explain(situation, device)), *_cards(situation)])
    _print("Processor", _processor(situation))
    _print("Memory", _memory())
    _print("Versions", [("python", platform.python_version()), *_versions()])
    advice = diagnosis.advise(situation)
    print("What to do" if advice else "Nothing is wrong.")
    for line in advice:
        print(f"  - {line}")
    where = resolve_device(device)
    print(
        f"\nPrecision with --precision auto: {str(resolve_precision('auto', where)).removeprefix('torch.')}"
    )
    if test_speed:
        _print("Speed", _speeds(where, console))


def _print(title: str, rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    print(flush=True)


def _cards(situation: Situation) -> list[tuple[str, str]]:
    rows = [("torch", f"{situation.torch}, {_build(situation)}")]
    if situation.driver:
        rows.append(("driver", f"{situation.driver}, runs CUDA up to {situation.driver_cuda or 'unknown'}"))
    else:
        rows.append(("driver", "no NVIDIA driver answers (nvidia-smi)"))
    for number, card in enumerate(situation.cards):
        rows.append(
            (
                f"card {number}",
                f"{card.name}, {card.memory / 1024:.0f} GiB, compute capability {card.capability}",
            )
        )
    for number in range(situation.usable):
        free, total = torch.cuda.mem_get_info(number)
        rows.append((f"cuda:{number}", f"{free / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB are free"))
    return rows


def _build(situation: Situation) -> str:
    if situation.cuda_build:
        return f"built for CUDA {situation.cuda_build}"
    return "built with Metal" if situation.mps_built else "built for the CPU alone"


def _processor(situation: Situation) -> list[tuple[str, str]]:
    flags = ""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = ", ".join(flag for flag in CPU_FLAGS if flag in value.split())
    waiting = os.environ.get("OMP_WAIT_POLICY", "").lower()
    rows = [
        ("name", environment.processor()),
        ("cores", f"{situation.cores} may be used of {os.cpu_count()}"),
        (
            "threads",
            f"{situation.threads}, that {'sleep' if waiting == 'passive' else 'spin'} while they wait",
        ),
        ("torch uses", torch.backends.cpu.get_cpu_capability()),
    ]
    return [*rows, ("has", flags)] if flags else rows


def _memory() -> list[tuple[str, str]]:
    rows = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rows.append(("machine", f"{total / GIBIBYTE:.1f} GiB"))
    limit = _container_limit()
    if limit:
        rows.append(("container", f"{limit / GIBIBYTE:.1f} GiB at most"))
    disk = shutil.disk_usage(Path.cwd())
    return [
        *rows,
        ("disk", f"{disk.free / GIBIBYTE:.1f} of {disk.total / GIBIBYTE:.1f} GiB are free in this folder"),
    ]


def _container_limit() -> int:
    """Bytes; 0 for none."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def _versions() -> list[tuple[str, str]]:
    return [(package, environment.version(package)) for package in environment.PACKAGES]


def _speeds(device: torch.device, console: Console) -> list[tuple[str, str]]:
    """Of the device, and of the CPU beside it where that is another."""
    devices = [device] if device.type == "cpu" else [device, torch.device("cpu")]
    found = []
    for each in devices:
        console.say(f"speed: {each}, about ten seconds")
        found.append(speed.measure(each))
    rows = []
    for name, unit, field in (
        ("matrix product, fp32", "GFLOP/s", "product"),
        ("memory copied", "GB/s", "copy"),
        ("training, like head", "rows/s", "like_rows"),
        ("training, ranking head", "users/s", "ranking_users"),
        (f"scores of {speed.ROWS:,} pairs", "ms", "score"),
        ("recommendations for a user", "ms", "recommend"),
    ):
        values = [
            f"{getattr(one, field):,.{1 if unit == 'ms' else 0}f} {unit} on {one.device}" for one in found
        ]
        rows.append((name, ", ".join(values)))
    return rows
