"""What the doctor says of machines that are known, and of this one."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
import torch
from experiment_runs import in_subprocess

from experiments import diagnosis
from experiments.diagnosis import Card, Situation

H100 = Card("NVIDIA H100", 81559, "9.0")
HEALTHY = Situation(
    torch="2.13.0+cu126",
    cuda_build="12.6",
    usable=1,
    cards=(H100,),
    driver="550.54",
    driver_cuda="12.4",
    visible=None,
    architectures=("sm_80", "sm_90"),
    complaint="",
    mps_built=False,
    mps_usable=False,
    cores=8,
    threads=8,
)
UNUSED = dataclasses.replace(HEALTHY, usable=0, architectures=())
NO_CARD = dataclasses.replace(UNUSED, cards=(), driver="", driver_cuda="")


@pytest.mark.parametrize(
    ("situation", "says"),
    [
        pytest.param(
            dataclasses.replace(UNUSED, torch="2.13.0+cpu", cuda_build=""),
            r"built without CUDA.*pip install .*torch.*/cu126",
            id="torch for the CPU",
        ),
        pytest.param(
            dataclasses.replace(UNUSED, cuda_build="", driver_cuda="13.1"), "/cu130", id="a newer driver"
        ),
        pytest.param(
            dataclasses.replace(UNUSED, cuda_build="13.0"),
            r"Driver 550\.54 runs CUDA up to 12\.4.*built for 13\.0.*Update the driver.*/cu126",
            id="a driver that is too old",
        ),
        pytest.param(
            dataclasses.replace(UNUSED, visible=""), r"CUDA_VISIBLE_DEVICES='' hides it", id="hidden"
        ),
        pytest.param(
            dataclasses.replace(UNUSED, complaint="CUDA unknown error"),
            r"cannot use it\. CUDA says: CUDA unknown error In a container",
            id="another reason",
        ),
        pytest.param(
            dataclasses.replace(HEALTHY, architectures=("sm_100", "sm_120")),
            r"not compiled for NVIDIA H100 \(sm_90\), only for sm_100, sm_120",
            id="a card that torch is not compiled for",
        ),
        pytest.param(
            dataclasses.replace(HEALTHY, cards=(H100, H100), visible="0"),
            r"1 of 2 cards are visible: CUDA_VISIBLE_DEVICES is '0'",
            id="one of two",
        ),
        pytest.param(NO_CARD, r"no driver answers.*/cpu", id="no card"),
        pytest.param(
            dataclasses.replace(HEALTHY, mps_built=True), "Metal, but the system has none", id="no Metal"
        ),
        pytest.param(
            dataclasses.replace(HEALTHY, threads=1), r"1 of 8 cores\. Unset OMP_NUM_THREADS", id="few threads"
        ),
        pytest.param(dataclasses.replace(HEALTHY, threads=64), "OMP_NUM_THREADS=8", id="many threads"),
    ],
)
def test_each_fault_is_named_with_its_remedy(situation: Situation, says: str) -> None:
    (advice,) = diagnosis.advise(situation)
    assert re.search(says, advice), advice


@pytest.mark.parametrize(
    "situation",
    [
        HEALTHY,
        dataclasses.replace(HEALTHY, architectures=("sm_80", "sm_86"), cards=(Card("A10", 24000, "8.9"),)),
        dataclasses.replace(NO_CARD, cuda_build="", torch="2.13.0+cpu"),
        dataclasses.replace(NO_CARD, cuda_build="", mps_built=True, mps_usable=True),
    ],
    ids=["a card", "a card of the same generation", "the CPU build without a card", "Metal"],
)
def test_where_nothing_is_wrong_nothing_is_said(situation: Situation) -> None:
    assert diagnosis.advise(situation) == []


NVIDIA_SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) echo "NVIDIA RTX 3060, 12288, 8.6, 535.104.05";;
  *) echo "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2 |";;
esac
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a torch that is built without CUDA")
def test_a_card_that_this_torch_cannot_use_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    situation = diagnosis.look()
    assert situation.cards == (Card("NVIDIA RTX 3060", 12288, "8.6"),)
    assert (situation.driver, situation.driver_cuda) == ("535.104.05", "12.2")
    assert diagnosis.explain(situation, "auto") == "cpu, though there is an NVIDIA card: see below"
    assert any("RTX 3060" in advice and "/cu126" in advice for advice in diagnosis.advise(situation))


@pytest.mark.parametrize("answer", ["exit 9", "echo 'No devices were found'", "echo 'a, b, c, d'"])
def test_a_tool_that_finds_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    situation = diagnosis.look()
    assert situation.cards == ()
    assert situation.driver == ""


def test_the_doctor_reports_with_a_speed_test(tmp_path: Path) -> None:
    done = in_subprocess(["experiments", "doctor", "--device", "cpu"], tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("will be used  cpu, as asked", "Processor", "Memory", f"torch     {torch.__version__[:4]}"):
        assert part in done.stdout
    speeds = done.stdout[done.stdout.index("Speed") :]
    figures = re.findall(r"([\d,.]+) (?:GFLOP/s|GB/s|rows/s|users/s|ms) on cpu", speeds)
    assert len(figures) == 6
    assert all(float(figure.replace(",", "")) > 0 for figure in figures)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused_after_the_report(tmp_path: Path) -> None:
    done = in_subprocess(["experiments", "doctor", "--device", "cuda", "--speed", "false"], tmp_path)
    assert done.returncode == 2
    assert "will be used  none: device=cuda is not usable here" in done.stdout
    assert "Versions" in done.stdout
    assert "Speed" not in done.stdout
    assert "Use --device auto" in done.stderr
