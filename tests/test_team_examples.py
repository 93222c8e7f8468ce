"""The examples for a team, as far as they can be held to the code without an engine to run them."""

from __future__ import annotations

import configparser
import re
import tomllib
from typing import Any

import yaml
from processes import ROOT

from experiments.commands import COMMANDS
from experiments.flags import Parser
from server.command_line import settings_from

TEAM = ROOT / "examples" / "team"
TEXT = (TEAM / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
EXAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (TEAM / "env.example").read_text(), re.MULTILINE))


def test_the_example_names_each_variable_and_no_secret() -> None:
    assert set(re.findall(r"\$\{(\w+)", TEXT)) == EXAMPLE.keys()
    needed = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert needed
    assert {EXAMPLE[name] for name in needed} == {""}, "who copies it has to choose"
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_no_password_is_in_an_address() -> None:
    ini = configparser.ConfigParser()
    ini.read(TEAM / "basic_auth.ini")
    assert ini["mlflow"]["database_uri"] == "postgresql+psycopg:///mlflow_auth"
    assert "admin_password" not in ini["mlflow"]
    assert "--backend-store-uri postgresql+psycopg:///mlflow " in SERVICES["mlflow"]["command"][2]
    for service in ("mlflow", "train"):
        assert {"PGHOST", "PGUSER", "PGPASSWORD"} <= SERVICES[service]["environment"].keys()
    databases = COMPOSE["configs"]["databases"]["content"]
    assert re.findall(r"CREATE DATABASE (\w+)", databases) == ["mlflow_auth", "optuna"]


def test_the_server_has_the_version_of_the_clients() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pin] = [pin for pin in project["dependencies"] if pin.startswith("mlflow==")]
    with_auth = pin.replace("mlflow", "mlflow[auth]")
    assert with_auth in TEXT
    assert with_auth in (ROOT / "docs" / "team.md").read_text()


def test_only_this_machine_is_published_to() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_what_is_served_and_trained_takes_its_flags() -> None:
    for service in ("serve", "train"):
        built = SERVICES[service]["build"]
        assert (TEAM / built["context"] / built["dockerfile"]).is_file()
    assert settings_from([], SERVICES["serve"]["environment"]).tracking_uri == "http://mlflow:5000"
    assert SERVICES["train"]["entrypoint"] == ["python", "-m", "experiments"]
    name, *words = SERVICES["train"]["command"]
    parser = Parser()
    COMMANDS[name].add_flags(parser)
    given = vars(parser.parse_args(words))
    [mount] = SERVICES["train"]["volumes"]
    assert mount.endswith(f":{given['ratings'].removesuffix('/ratings.csv')}:ro")
