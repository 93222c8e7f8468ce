"""How jobs share the cores, and what becomes of memory that was freed. Each in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from experiment_runs import subprocess_environment

SHARE = """
import os
from experiments.process import share_cores
share_cores()
print(os.environ.get("OMP_WAIT_POLICY", "spin"), flush=True)
input()
"""

FREED = """
import sys
from experiments.process import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
if sys.argv[1] == "kept":
    keep_freed_memory()
before = resident()
block = bytearray(2**26)
block[:] = bytes([1]) * 2**26
del block
print(resident() - before)
"""


def _job(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    inherited = subprocess_environment(TMPDIR=str(folder), **environment)
    if "OMP_WAIT_POLICY" not in environment:
        inherited.pop("OMP_WAIT_POLICY", None)
    return subprocess.Popen(
        [sys.executable, "-c", SHARE], env=inherited, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _policy(job: "subprocess.Popen[str]") -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def _end(job: "subprocess.Popen[str]") -> None:
    job.communicate("\n", timeout=30)
    assert job.returncode == 0


def test_the_second_of_two_jobs_lets_its_threads_sleep(tmp_path):
    first = _job(tmp_path)
    assert _policy(first) == "spin"
    second, third = _job(tmp_path), _job(tmp_path)
    assert [_policy(second), _policy(third)] == ["passive", "passive"]
    for job in (first, second, third):
        _end(job)
    after = _job(tmp_path)
    assert _policy(after) == "spin"
    _end(after)


def test_a_killed_job_leaves_no_lock_behind(tmp_path):
    first = _job(tmp_path)
    assert _policy(first) == "spin"
    first.kill()
    first.wait(30)
    after = _job(tmp_path)
    assert _policy(after) == "spin"
    _end(after)
    for stream in (first.stdin, first.stdout):
        stream.close()


def test_the_environment_has_the_last_word_on_how_threads_wait(tmp_path):
    first = _job(tmp_path)
    assert _policy(first) == "spin"
    second = _job(tmp_path, OMP_WAIT_POLICY="active")
    assert _policy(second) == "active"
    for job in (first, second):
        _end(job)


def test_where_no_lock_can_be_had_threads_sleep(tmp_path):
    (tmp_path / f"widedeep-{os.getuid()}.lock").mkdir()
    job = _job(tmp_path)
    assert _policy(job) == "passive"
    _end(job)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has the setting")
def test_freed_memory_is_kept_for_the_next_block():
    def left(mode: str) -> int:
        command = [sys.executable, "-c", FREED, mode]
        found = subprocess.run(
            command, env=subprocess_environment(), capture_output=True, text=True, check=True
        )
        return int(found.stdout)

    assert left("kept") > 2**25 > left("given back")
