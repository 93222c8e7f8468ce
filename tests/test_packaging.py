"""What is written down twice is the same twice: versions, entry points, flags."""

from __future__ import annotations

import re
import string
import tomllib
from typing import Any

import pytest
import yaml
from experiment_runs import ROOT

from experiments.commands import COMMANDS
from experiments.environment import MODEL_PACKAGES, requirements
from experiments.flags import Parser, default_text
from experiments.jobs import BatchConfig, JobConfig
from experiments.study_config import StudyConfig
from server.settings import ServerSettings
from widedeep.config import DataConfig, TrainConfig

PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA: dict[str, Any] = yaml.safe_load((ROOT / "conda.yaml").read_text())
ENTRY_POINTS: dict[str, dict[str, Any]] = PROJECT["entry_points"]
PINNED = {
    "torch",
    "mlflow",
    "optuna",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "protobuf",
    "pandas",
    "pyarrow",
}


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines)


def test_conda_and_pyproject_pin_the_same_versions() -> None:
    [pip] = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    ours = pins(PYPROJECT["project"]["dependencies"])
    assert pins(pip) == ours
    assert set(ours) >= PINNED


def test_no_environment_names_a_build_or_an_index() -> None:
    for name in ("conda.yaml", "pyproject.toml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"\+cpu|\+cu\d|index-url|-e \.", text), name


def test_conda_takes_a_python_that_the_project_allows() -> None:
    [python] = [entry for entry in CONDA["dependencies"] if str(entry).startswith("python=")]
    assert python == "python=3.11"
    assert PYPROJECT["project"]["requires-python"].startswith(">=3.11")


def test_the_registered_model_asks_for_the_same_versions() -> None:
    ours = pins(PYPROJECT["project"]["dependencies"])
    found = pins(requirements())
    assert set(found) == set(MODEL_PACKAGES)
    assert {name: found[name] for name in ("torch", "pandas", "mlflow")} == {
        name: ours[name] for name in ("torch", "pandas", "mlflow")
    }


def test_every_command_is_an_entry_point_and_the_other_way_round() -> None:
    assert set(ENTRY_POINTS) == {*COMMANDS, "serve"}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_calls_its_command_with_flags_that_there_are(name: str) -> None:
    entry = ENTRY_POINTS[name]
    command = entry["command"]
    start = "python -m server " if name == "serve" else f"python -m experiments {name} "
    assert command.startswith(start)
    used = [field for _, field, _, _ in string.Formatter().parse(command) if field]
    assert used == list(entry["parameters"])
    assert re.findall(r"--([a-z-]+) \{([a-z_]+)\}", command) == [
        (field.replace("_", "-"), field) for field in used
    ]
    if name == "serve":
        assert set(used) <= set(ServerSettings.__dataclass_fields__)
    else:
        parser = Parser()
        COMMANDS[name].add_flags(parser)
        flags = {word for action in parser._actions for word in action.option_strings}
        assert {f"--{field.replace('_', '-')}" for field in used} <= flags


def test_defaults_of_the_main_job_are_those_of_the_dataclasses() -> None:
    fields = {
        **DataConfig.__dataclass_fields__,
        **TrainConfig.__dataclass_fields__,
        **JobConfig.__dataclass_fields__,
        **StudyConfig.__dataclass_fields__,
    }
    for name, parameter in ENTRY_POINTS["main"]["parameters"].items():
        assert str(parameter["default"]) == default_text(fields[name]), name
    for name, parameter in ENTRY_POINTS["recommend"]["parameters"].items():
        assert str(parameter["default"]) == default_text(BatchConfig.__dataclass_fields__[name]), name


def test_no_parameter_is_a_path() -> None:
    """MLflow demands that a path exists and then passes it on as an absolute one: ours may be empty or new."""
    for entry in ENTRY_POINTS.values():
        for parameter in entry["parameters"].values():
            assert parameter["type"] in ("string", "int", "float")
            assert "default" in parameter
