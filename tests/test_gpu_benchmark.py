"""The benchmark of one GPU on the CPU: it runs on torch, numpy and pandas alone, and stops where devices disagree."""

from __future__ import annotations

import json
import math
from pathlib import Path

import bare
import pytest
import torch

from experiments.benchmarks import agreement, gpu, roofline
from experiments.benchmarks.agreement import Comparison, Outcome
from widedeep.model import WideDeepNet

CPU = torch.device("cpu")


def test_it_runs_where_only_torch_numpy_and_pandas_are(tmp_path: Path) -> None:
    code = "from experiments.benchmarks import gpu\n"
    code += f"sys.exit(gpu.main(['--quick', '--device', 'cpu', '--out', {str(tmp_path)!r}]))"
    done = bare.run(code)
    assert done.returncode == 0, done.stderr
    assert "No GPU was used: all figures are of the cpu" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    found = {(row["name"], row["metric"]): row["value"] for row in results["rows"]}
    heads = [
        f"like head, {kind}, {size:,} rows a step"
        for kind in ("plain", "graphs")
        for size in gpu.QUICK_BATCHES
    ]
    for name in (*heads, "ranking"):
        assert found[name, "epoch"] > 0
        assert found[name, "training"] > 0
        assert found[name, "share of the roofline"] > 0
    for size in gpu.QUICK_BATCHES:
        plain, graphs = (
            found[f"like head, {kind}, {size:,} rows a step", "validation AUC after one epoch"]
            for kind in ("plain", "graphs")
        )
        assert plain == graphs > 0.5
    assert sorted(results["ratios"]) == sorted(
        f"graphs/plain, {size:,} rows a step" for size in gpu.QUICK_BATCHES
    )
    for name in ("like head, plain", "like head, graphs", "ranking"):
        assert found[name, "largest difference of losses to the CPU"] == 0
        assert found[name, "largest difference of logits to the CPU"] == 0
    assert any(metric.startswith("inference of") for _, metric in found)


def test_a_device_that_comes_to_something_else_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is trained after the CPU's own two trainings begins from weights that are off by 5 %."""
    start, calls = agreement.start, 0

    def tampered(*arguments: object) -> WideDeepNet:
        nonlocal calls
        calls += 1
        net = start(*arguments)  # type: ignore[arg-type]
        if calls > 2:
            with torch.no_grad():
                net.like.item.weight *= 1.05
                net.deep.item_bias *= 1.05
        return net

    monkeypatch.setattr(agreement, "start", tampered)
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "Trained on cpu the model is not what it is on the CPU. Nothing was measured." in error
    assert "ranking: losses differ by" in error
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_number_does_not_agree() -> None:
    right, wrong = Outcome([0.5, 0.4], torch.zeros(3)), Outcome([0.5, math.nan], torch.zeros(3))
    assert Comparison("same", right.loss_difference(right), right.logit_difference(right)).agrees
    assert not Comparison("nan", right.loss_difference(wrong), 0.0).agrees
    assert not Comparison("nan", 0.0, right.logit_difference(Outcome([], torch.full((3,), math.nan)))).agrees


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "10"], "--rows must be from"),
        (["--precision", "fp16"], "invalid choice"),
    ],
)
def test_wrong_flags_stop_before_anything_is_measured(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        gpu.main(["--quick", "--out", str(tmp_path / "out"), *flags])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert gpu.main(["--quick", "--device", "cuda", "--out", str(tmp_path / "out")]) == 1
    assert "cuda" in capsys.readouterr().err


def test_the_roofline_is_the_longer_of_products_and_bytes() -> None:
    peaks = roofline.Peaks(operations=100.0, bytes=10.0)
    assert roofline.Work(operations=200.0, bytes=10.0).least_seconds(peaks) == 2.0
    assert roofline.Work(operations=200.0, bytes=50.0).least_seconds(peaks) == 5.0
    left, right = torch.randn(3, 5), torch.randn(5, 7)
    assert roofline.operations(lambda: left @ right) == 2 * 3 * 5 * 7
    measured = roofline.Peaks.measured(CPU, torch.float32)
    assert measured.operations > 0
    assert measured.bytes > 0


@pytest.mark.gpu
def test_on_cuda_it_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    assert [str(found) for found in agreement.compare(torch.device("cuda")) if not found.agrees] == []
