"""Which device will be used, why, and what to do where that is not the one that is there.

A Situation is what was found on the machine; `explain` and `advise` are functions of it and of nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from dataclasses import dataclass

import torch

from widedeep.device import resolve_device
from widedeep.errors import ConfigError, DeviceError

WHEELS = "https://download.pytorch.org/whl"
SMI_SECONDS = 20


@dataclass(frozen=True)
class Card:
    """An NVIDIA card as the driver sees it.  memory  in MiB;  capability  such as 9.0"""

    name: str
    memory: int
    capability: str


@dataclass(frozen=True)
class Situation:
    """cuda_build   the CUDA version that torch was built for, empty for none
    usable          cards that torch can use
    cards           those that the driver has, whether torch can use them or not
    driver          its version; driver_cuda: the newest CUDA that it runs, empty where nvidia-smi is not there
    visible         CUDA_VISIBLE_DEVICES, None where it is not set
    architectures   that torch was compiled for, such as sm_90
    complaint       what CUDA said when torch asked it to start
    """

    torch: str
    cuda_build: str
    usable: int
    cards: tuple[Card, ...]
    driver: str
    driver_cuda: str
    visible: str | None
    architectures: tuple[str, ...]
    complaint: str
    mps_built: bool
    mps_usable: bool
    cores: int
    threads: int


def look() -> Situation:
    """This machine's."""
    cards, driver, driver_cuda = _ask_driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        complaint = "" if usable or torch.version.cuda is None else _start_cuda()
        architectures = tuple(torch.cuda.get_arch_list()) if usable else ()
    return Situation(
        torch=torch.__version__,
        cuda_build=torch.version.cuda or "",
        usable=usable,
        cards=cards,
        driver=driver,
        driver_cuda=driver_cuda,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        architectures=architectures,
        complaint=complaint,
        mps_built=torch.backends.mps.is_built(),
        mps_usable=torch.backends.mps.is_available(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
    )


def explain(situation: Situation, asked: str) -> str:
    """The device that `--device ASKED` leads to, and why."""
    try:
        device = resolve_device(asked)
    except (ConfigError, DeviceError) as error:
        return f"none: {error}"
    if asked != "auto":
        return f"{device}, as asked"
    if device.type == "cuda":
        return (
            f"cuda: torch can use {situation.usable} of the {len(situation.cards) or situation.usable} cards"
        )
    if device.type == "mps":
        return "mps: torch finds Apple's Metal and no CUDA"
    if situation.cards:
        return "cpu, though there is an NVIDIA card: see below"
    return f"cpu: no NVIDIA card answers{'' if situation.mps_built else ', and this torch has no Metal'}"


def advise(situation: Situation) -> list[str]:
    """What is wrong and what to do; empty where nothing is."""
    found = _of_cards(situation) if situation.cards and not situation.usable else _of_use(situation)
    if situation.mps_built and not situation.mps_usable:
        found.append("This torch has Metal, but the system has none: it takes macOS 14 on Apple's own chips.")
    if situation.threads < situation.cores:
        found.append(
            f"torch uses {situation.threads} of {situation.cores} cores. Unset OMP_NUM_THREADS, or set it higher."
        )
    if situation.threads > situation.cores:
        found.append(
            f"torch starts {situation.threads} threads where {situation.cores} cores may be used, which is slower. "
            f"Set OMP_NUM_THREADS={situation.cores}."
        )
    return found


def _of_cards(situation: Situation) -> list[str]:
    """Why torch uses none of the cards that are there."""
    names = ", ".join(card.name for card in situation.cards)
    if not situation.cuda_build:
        wheel = _wheel(situation.driver_cuda)
        return [
            f"There is a card ({names}), but torch {situation.torch} is built without CUDA. Install one that has it: "
            f"pip install --force-reinstall torch --index-url {WHEELS}/{wheel}."
        ]
    if situation.visible is not None and situation.visible.strip() in ("", "-1", "none"):
        return [
            f"There is a card ({names}), but CUDA_VISIBLE_DEVICES={situation.visible!r} hides it. Unset it, or set "
            "it to the number of the card."
        ]
    if situation.driver_cuda and _major(situation.driver_cuda) < _major(situation.cuda_build):
        wheel = _wheel(situation.driver_cuda)
        return [
            f"Driver {situation.driver} runs CUDA up to {situation.driver_cuda}, and torch {situation.torch} is built "
            f"for {situation.cuda_build}. Update the driver, or install a torch that is built for it: "
            f"pip install --force-reinstall torch --index-url {WHEELS}/{wheel}."
        ]
    said = f" CUDA says: {situation.complaint}" if situation.complaint else ""
    return [
        f"There is a card ({names}), and torch {situation.torch} for CUDA {situation.cuda_build} cannot use it.{said} "
        "In a container, start it with the card (docker run --gpus all)."
    ]


def _of_use(situation: Situation) -> list[str]:
    """What is wrong with the cards that torch uses, or with looking for one."""
    found = []
    for card in situation.cards[: situation.usable]:
        name = "sm_" + card.capability.replace(".", "")
        same_major = [one for one in situation.architectures if one[:-1] == name[:-1]]
        if situation.architectures and not same_major:
            found.append(
                f"torch {situation.torch} is not compiled for {card.name} ({name}), only for "
                f"{', '.join(situation.architectures)}. Install a torch of another CUDA version from {WHEELS}."
            )
    if situation.usable and situation.usable < len(situation.cards):
        found.append(
            f"{situation.usable} of {len(situation.cards)} cards are visible: CUDA_VISIBLE_DEVICES is "
            f"{situation.visible!r}."
        )
    if not situation.usable and situation.cuda_build and not situation.driver:
        found.append(
            f"torch is built for CUDA {situation.cuda_build}, and no driver answers. Where there is a card, install "
            "NVIDIA's driver; where there is none, the CPU build of torch is smaller: "
            f"pip install torch --index-url {WHEELS}/cpu."
        )
    return found


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and its container's limit."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return affinity
    return affinity if quota == "max" else max(1, min(affinity, round(int(quota) / int(period))))


def _ask_driver() -> tuple[tuple[Card, ...], str, str]:
    """The cards, the driver's version, and the newest CUDA that it runs."""
    listed = _smi("--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits")
    cards, driver = [], ""
    for line in listed.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[1].isdecimal():
            cards.append(Card(parts[0], int(parts[1]), parts[2]))
            driver = parts[3]
    newest = re.search(r"CUDA Version:\s*([\d.]+)", _smi()) if cards else None
    return tuple(cards), driver, newest[1] if newest else ""


def _smi(*words: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *words], capture_output=True, text=True, timeout=SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _start_cuda() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def _wheel(driver_cuda: str) -> str:
    """The folder of PyTorch's wheels that a driver runs: within a major version of CUDA it runs all of them."""
    return "cu130" if _major(driver_cuda) >= 13 else "cu126"


def _major(version: str) -> int:
    """0 for an empty one."""
    return int(version.split(".")[0] or 0)
