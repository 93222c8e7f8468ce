"""The examples of a schedule, as far as they can be held to the code without cron, systemd and a cluster."""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ROOT

from experiments.commands import COMMANDS
from experiments.flags import Parser, config_from, section_from
from experiments.jobs import JobConfig
from widedeep.config import Config

SCHEDULE = ROOT / "examples" / "schedule"
CRONTAB = (SCHEDULE / "crontab").read_text()
UNIT = (SCHEDULE / "widedeep-retrain.service").read_text()
TIMER = (SCHEDULE / "widedeep-retrain.timer").read_text()
CRONJOB: dict[str, Any] = yaml.safe_load((SCHEDULE / "cronjob.yaml").read_text())
SERVER, *_ = yaml.safe_load_all((ROOT / "examples" / "deploy" / "kubernetes.yaml").read_text())
PYTHON = "/opt/widedeep/venv/bin/python"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, of systemd"
)


def one(pattern: str, text: str) -> str:
    [found] = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def cron_line() -> str:
    [line] = [line for line in CRONTAB.splitlines() if line and not re.match(r"#|\w+=", line)]
    return line


def settings(command: list[str]) -> tuple[Config, JobConfig]:
    """What a command that the examples name would do."""
    assert command[:4] == [command[0], "-m", "experiments", "main"]
    parser = Parser(prog="main")
    COMMANDS["main"].add_flags(parser)
    given = vars(parser.parse_args(command[4:]))
    return config_from(given), section_from(given, JobConfig)


def test_each_says_what_was_run_and_what_was_not() -> None:
    files = list(SCHEDULE.iterdir())
    assert {path.name for path in files} == {
        "cronjob.yaml",
        "crontab",
        "widedeep-retrain.service",
        "widedeep-retrain.timer",
    }
    for path in files:
        head = re.split(r"\n(?!#)", path.read_text())[0]
        assert re.search(r"\bRun: ", head), path
        assert re.search(r"Not run: ", head), path


def test_all_train_what_is_new() -> None:
    cron = shlex.split(cron_line().split(">>")[0])
    commands = [
        cron[cron.index(PYTHON) :],
        shlex.split(one(r"^ExecStart=(.*)$", UNIT)),
        ["python", *container()["command"][1:], *container()["args"]],
    ]
    for command in commands:
        config, job = settings(command)
        assert (job.since, job.alias, job.register) == ("champion", "champion", "widedeep")
        assert config.data.ratings.endswith("ratings.parquet")


def test_the_cron_line_starts_none_while_one_is_at_work(tmp_path: Path) -> None:
    fields, line = cron_line().split(None, 5)[:5], cron_line().split(None, 5)[5]
    assert all(re.fullmatch(r"[\d*,/-]+", field) for field in fields)
    assert "%" not in line, "cron ends the command there"
    script = tmp_path / "python"  # says that it was started
    script.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    script.chmod(0o755)
    here = line.replace("/srv/widedeep", str(tmp_path)).replace(PYTHON, str(script))

    def said() -> str:
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    log = tmp_path / "retrain.log"
    with (tmp_path / "retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert said() == ""
        assert log.read_text() == ""
    assert said() == f"widedeep: the retraining failed, see {log}\n"
    assert "'-m', 'experiments', 'main'" in log.read_text()


def verified(folder: Path, name: str, text: str) -> str:
    """What systemd has to say of a unit, whose service stands beside it."""
    (folder / "widedeep-retrain.service").write_text(UNIT.replace(PYTHON, sys.executable))
    (folder / name).write_text(text.replace(PYTHON, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(folder / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "\n".join(line for line in done.stderr.splitlines() if "widedeep-retrain" in line)


@needs_systemd
def test_the_units_are_some(tmp_path: Path) -> None:
    assert verified(tmp_path, "widedeep-retrain.service", UNIT) == ""
    assert verified(tmp_path, "widedeep-retrain.timer", TIMER) == ""
    wrong = verified(tmp_path, "widedeep-retrain.timer", TIMER.replace("Persistent", "Persistant"))
    assert "Persistant" in wrong, "it sees what is wrong"


@needs_systemd
def test_the_timer_goes_off_every_night() -> None:
    when = one(r"^OnCalendar=(.*)$", TIMER)
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=2", "--base-time=2026-03-01 00:00:00 UTC", when],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )
    assert re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d):\d\d UTC", done.stdout)[-2:] == [
        "2026-03-01 03:30",
        "2026-03-02 03:30",
    ]
    assert "Unit=" not in TIMER, "the service of the same name"


def pod() -> dict[str, Any]:
    found: dict[str, Any] = CRONJOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    [found] = pod()["containers"]
    return dict(found)


def test_the_job_runs_one_at_a_time_in_the_servers_image() -> None:
    assert CRONJOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert pod()["restartPolicy"] == "Never"
    served = SERVER["spec"]["template"]["spec"]
    assert pod()["securityContext"] == served["securityContext"]
    assert container()["image"] == served["containers"][0]["image"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod()["volumes"]}
    config, _ = settings(["python", *container()["command"][1:], *container()["args"]])
    assert config.data.ratings.startswith(f"{mounts['data']}/")
    dockerfile = (ROOT / "examples" / "deploy" / "Dockerfile").read_text()
    assert one(r"^WORKDIR (/var\S*)$", dockerfile) == mounts["cache"]
