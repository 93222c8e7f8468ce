"""The benchmarks' form: fair turns, medians of five, the two files; and the loading benchmark, run small."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.benchmarks import (
    catalogue,
    crosses,
    evaluating,
    form,
    growth,
    loading,
    memory,
    processes,
    ready,
)
from widedeep.datasets import cache
from widedeep.errors import ConfigError


def test_turns_are_interleaved_and_each_begins_some_rounds() -> None:
    order: list[str] = []
    cases = [form.Case(name, lambda name=name: order.append(name)) for name in "abc"]  # type: ignore[misc]
    timings = form.interleave(cases, repeats=5)
    rounds = ["".join(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca", "cab"]
    assert {name: len(timing.wall) for name, timing in timings.items()} == {"a": 5, "b": 5, "c": 5}


def test_what_is_timed_is_the_run_alone() -> None:
    def burn() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    timings = form.interleave(
        [form.Case("sleeps", lambda: time.sleep(0.02), prepare=burn), form.Case("burns", burn)]
    )
    assert timings["sleeps"].wall_median >= 0.02
    assert timings["sleeps"].cpu_median < 0.01, "neither the preparation nor the sleep is CPU time of the run"
    assert timings["burns"].cpu_median >= 0.02


def test_medians_of_fewer_than_five_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 runs, got 4"):
        form.interleave([form.Case("a", lambda: None)], repeats=4)
    with pytest.raises(ValueError, match="same name"):
        form.interleave([form.Case("a", lambda: None), form.Case("a", lambda: None)])
    assert form.Timing((9.0, 1.0, 2.0, 3.0, 100.0), (1.0, 1.0, 1.0, 5.0, 5.0)).wall_median == 3.0


def test_ratios_above_one_mean_that_the_first_is_better() -> None:
    assert form.ratio_of_costs(ours=2.0, theirs=6.0) == 3.0
    assert form.ratio_of_gains(ours=6.0, theirs=2.0) == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells no better")
def test_the_peak_is_that_of_the_process_and_not_of_its_parent() -> None:
    code = "import numpy, sys; from experiments.benchmarks import memory; numpy.ones(int(sys.argv[1]), numpy.uint8); "
    held = np.ones(600 * 2**20, np.uint8)
    assert memory.peak() >= len(held)
    few, more = (
        int(subprocess.check_output([sys.executable, "-c", f"{code} print(memory.peak())", str(size)]))
        for size in (1, 200 * 2**20)
    )
    assert few < 200 * 2**20 <= more < len(held)


def test_the_two_files(tmp_path: Path) -> None:
    report = form.Report("A title", "What was done.", ratios={"ours/other": 4.2}, notes=["a | b"])
    report.add("ours", "load", 1.23456, "CPU s")
    report.add("other", "load", 123_456.7, "rows/s")
    path = form.write(report, tmp_path / "deep" / "out")
    assert sorted(os.listdir(path.parent)) == ["report.md", "results.json"]
    assert json.loads(path.with_name("results.json").read_text()) == {
        "rows": [
            {"name": "ours", "metric": "load", "value": 1.23456, "unit": "CPU s"},
            {"name": "other", "metric": "load", "value": 123_456.7, "unit": "rows/s"},
        ],
        "ratios": {"ours/other": 4.2},
    }
    text = path.read_text()
    assert text.startswith("# A title\n\nWhat was done.\n")
    assert "| ours | load | 1.235 | CPU s |" in text
    assert "| other | load | 123,457 | rows/s |" in text
    assert "| ours/other | 4.2 |" in text
    for expected in ("## Machine", "| processor | ", "| memory | ", "## Versions"):
        assert expected in text
    assert f"| python | {platform.python_version()} |" in text


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file/out cannot be written to"):
        form.write(form.Report("t", "a"), tmp_path / "file" / "out")


def test_the_loading_benchmark_from_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.benchmarks.loading",
            "--quick",
            "--rows",
            "2000",
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "| ours | load .dat |" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["ratios"]) == {
        "ours/pandas .dat",
        "ours/pandas-c .dat",
        "ours/pandas-c-checked .dat",
        "ours/pandas .csv",
        "ours/pandas-checked .csv",
        "ours/pandas to training-ready",
        "ours-cached/pandas to training-ready",
    }
    by_name = {(row["name"], row["metric"], row["unit"]): row["value"] for row in results["rows"]}
    costs = [by_name[name, "load .dat", "CPU s"] for name in ("ours", "pandas")]
    assert results["ratios"]["ours/pandas .dat"] == pytest.approx(costs[1] / costs[0])
    assert by_name["ours", "text to training-ready", "GB at the peak"] > 0.05
    assert by_name["pandas", "text to training-ready", "bytes a row at the peak"] > 0
    assert "ours-cached parsed here, too" in done.stdout, "2000 rows are too few to be kept"


def test_both_of_its_files_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIDEDEEP_NO_CACHE", "1")
    loading.write_files(2000, tmp_path)
    one, other = loading.ours("ml-10m", tmp_path), loading.ours("ml-25m", tmp_path)
    assert one.digest == other.digest
    assert len(one.interactions) == 2000
    assert one.items.equals(other.items)


def test_every_way_to_training_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALLEST", 1)
    for name in ("WIDEDEEP_NO_CACHE", "WIDEDEEP_DATA_DIR"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    loading.write_files(5000, tmp_path)
    found = {name: way(tmp_path) for name, way in [*ready.WAYS.items(), ("again", ready.cached)]}
    assert len(list((tmp_path / "cache/columns").iterdir())) == 1
    encoded, histories = found["pandas"]
    assert 3000 < len(encoded) < 5000
    for one, other in found.values():
        for ours, theirs in ((one, encoded), (other, histories)):
            for column, expected in vars(theirs).items():
                assert torch.equal(getattr(ours, column).to(expected.dtype), expected), column


@pytest.mark.parametrize("flags", [[], ["--out", "x", "--rows", "5"], ["--out", "x", "--rows", "many"]])
def test_wrong_flags_stop_before_anything_is_measured(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        loading.main(flags)
    assert caught.value.code == 2
    assert "--" in capsys.readouterr().err


def test_the_crosses_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crosses.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "items with crosses" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    found = {(row["name"], row["metric"]): row["value"] for row in results["rows"]}
    assert {f"product/matmul, {rows} rows" for rows in crosses.ROWS} <= set(results["ratios"])
    few, many = (f"{size:,} items" for size in crosses.QUICK_SIZES)
    assert found[many, "items with crosses"] <= crosses.QUICK_SIZES[1]
    assert (
        found[few, "stored"] >= found[few, "dense matrix"]
    )  # all of them are kept, and which items they are of
    assert found[many, "stored"] < found[many, "dense matrix"]  # fewer users than items: the product form
    assert found[many, "fit"] > 0


def test_the_catalogue_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert catalogue.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert "recommend/floor" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    found = {(row["name"], row["metric"]): row["value"] for row in results["rows"]}
    assert results["ratios"]["recommend/floor"] == pytest.approx(
        found["floor", "1 query"] / found["rank", "1 query"]
    )
    assert set(results["ratios"]) == {"recommend/floor", "recommend/floor, 64 queries", "score/layers"}
    assert found["float32", "3,000 items, agreement on the best 100"] == 1
    assert found["candidates", "3,000 items, recall of the best 100"] > 0.99


def test_two_processes_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert processes.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "# Several processes" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    found = {
        (row["name"], row["metric"]): row["value"]
        for row in results["rows"]
        if row["unit"] != "rows per CPU s"
    }
    for case in processes.CASES:
        assert 0 < found[case, "median step"] <= found[case, "fastest step"]
    assert min(found[name, "exchange of gradients"] for name in processes.EXCHANGES) > 0
    for other in ("one process, two threads", processes.APART):
        assert results["ratios"][f"two processes/1 x {other}, median step"] == pytest.approx(
            found["two processes", "median step"] / found[other, "median step"]
        )


def test_evaluating_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The opponents find the lists that ours does, but where rounding decides."""
    flags = ["--quick", "--users", "120", "--items", "100", "--interactions", "3000"]
    assert evaluating.main([*flags, "--out", str(tmp_path)]) == 0
    assert "| EASE/numpy loop, EASE |" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    found = {(row["name"], row["metric"]): row["value"] for row in results["rows"]}
    assert {name for name, metric in found if metric == "NDCG@10"} == set(evaluating.NAMES)
    for opponent in ("numpy loop, EASE", "dense product, EASE"):
        assert found[opponent, "lists that are EASE's"] > 0.9
        assert results["ratios"][f"EASE/{opponent}"] == pytest.approx(
            found["EASE", "lists"] / found[opponent, "lists"]
        )
    assert all(found[name, "memory"] >= found[name, "memory before it"] > 0 for name in evaluating.NAMES)


def test_growth_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main(["--quick", "--out", str(tmp_path)]) == 0
    assert "| crosses, 4,000 interactions |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    found = {(row["name"], row["metric"]): row["value"] for row in rows}
    for stage in growth.STAGES:
        assert (stage, "last slope of time") in found
        assert all(found[f"{stage}, {size:,}", "time"] >= 0 for size in growth.QUICK_SIZES)
    assert found[f"{growth.ENCODE}, {growth.QUICK_SIZES[1]:,}", "time"] > 0


def test_the_slope_is_the_exponent() -> None:
    sizes = [10**5, 10**6, 10**7]
    assert growth.slope(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert growth.slope(sizes, [7.0, 7.0, 7.0]) == pytest.approx(0.0)


def test_a_stage_apart_costs_what_it_says(tmp_path: Path) -> None:
    growth.make(tmp_path, 4000, 300)
    cost = form.apart(growth.measure, growth.ENCODE, tmp_path)
    assert cost.seconds > 0
    histories, test, item_count, warm_count = growth._encoded(tmp_path)
    assert warm_count < item_count <= 301
    assert len(histories.item_index) + len(test) < 4000  # the rest validates
