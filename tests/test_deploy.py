"""The examples of deployment, as far as they can be held to the code without an engine to run them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ROOT

from server import addresses
from server.client import arguments as client_arguments
from server.command_line import settings_from
from server.settings import ServerSettings

DEPLOY = ROOT / "examples" / "deploy"
UNIT = (DEPLOY / "widedeep.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def one(pattern: str, text: str) -> str:
    [found] = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def test_each_says_what_was_run_and_what_was_not() -> None:
    files = [path for path in DEPLOY.iterdir() if path.name != "Dockerfile.dockerignore"]
    assert {path.name for path in files} == {
        "Dockerfile",
        "kubernetes.yaml",
        "nginx.conf",
        "widedeep.service",
    }
    for path in files:
        head = re.split(r"\n(?!#)", path.read_text())[0]
        assert re.search(r"\bRun\b", head), path
        assert re.search(r"Not run: ", head), path


def unit_settings() -> ServerSettings:
    words = shlex.split(one(r"^ExecStart=(.*)$", UNIT))
    assert words[1:3] == ["-m", "server"]
    return settings_from(words[3:], {})


def test_the_unit_leaves_time_to_drain() -> None:
    settings = unit_settings()
    assert float(one(r"^TimeoutStopSec=(\d+)$", UNIT)) > settings.grace
    assert settings.cache_dir == f"/var/cache/{one(r'^CacheDirectory=(.*)$', UNIT)}"
    assert settings.workers > 1, "an example of several"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, of systemd")
def test_the_unit_is_one(tmp_path: Path) -> None:
    python = one(r"^ExecStart=(\S+)", UNIT)

    def said_of(text: str) -> str:
        path = tmp_path / "widedeep.service"
        path.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        return "\n".join(line for line in done.stderr.splitlines() if path.name in line)

    good = UNIT.replace(python, sys.executable)
    assert said_of(good) == ""
    assert "KillModus" in said_of(good.replace("KillMode", "KillModus")), "it sees what is wrong"


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_the_image_copies_what_there_is() -> None:
    sources = [
        source
        for copy in instructions("COPY")
        if not copy.startswith("--from=")
        for source in copy.split()[:-1]
    ]
    assert set(sources) == {"pyproject.toml", "README.md", "widedeep", "experiments", "server"}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_the_image_installs_what_the_project_pins() -> None:
    [torch] = [pin for pin in PYPROJECT["dependencies"] if pin.startswith("torch==")]
    installs = [run for run in instructions("RUN") if "pip install" in run]
    assert [shlex.split(install)[3] for install in installs] == [torch, "."]
    assert installs[0].endswith("--index-url https://download.pytorch.org/whl/cpu")
    low, high = re.findall(r"3\.(\d+)", PYPROJECT["requires-python"])
    for image in instructions("FROM"):
        assert int(low) <= int(one(r"^python:3\.(\d+)-", image)) < int(high)


def test_the_image_starts_the_server_as_nobody_in_particular() -> None:
    [user] = instructions("USER")
    assert int(user.split(":")[0]) > 0
    [entry], [command] = instructions("ENTRYPOINT"), instructions("CMD")
    assert yaml.safe_load(entry) == ["python", "-m", "server"]
    settings = settings_from(yaml.safe_load(command), {})
    [exposed] = instructions("EXPOSE")
    assert [settings.port, settings.metrics_port] == [int(port) for port in exposed.split()]
    addresses.check("--host", settings.host, encrypted=False, insecure=settings.insecure)
    assert settings.cache_dir in one(r"install --directory (.*)$", DOCKERFILE)
    [check] = instructions("HEALTHCHECK")
    asked = yaml.safe_load(check.partition(" CMD ")[2])
    assert asked[:3] == ["python", "-m", "server.client"]
    given = client_arguments.parser().parse_args(asked[3:])
    assert given.target == f"127.0.0.1:{settings.port}"


def manifest(kind: str) -> dict[str, Any]:
    [found] = [document for document in MANIFESTS if document["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    [found] = pod()["containers"]
    return dict(found)


def test_the_pods_flags_ports_and_probes_agree() -> None:
    variables = {variable["name"]: variable["value"] for variable in container()["env"]}
    settings = settings_from(container()["args"], variables)
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}
    addresses.check("--host", settings.host, encrypted=False, insecure=settings.insecure)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["grpc"]["port"] == settings.port
    [served] = manifest("Service")["spec"]["ports"]
    assert (served["port"], served["targetPort"]) == (settings.port, "grpc")
    assert settings.host == "0.0.0.0", "probes and clients come from elsewhere"
    assert settings.admin_host == "127.0.0.1", "operators come by kubectl exec"
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod()["volumes"]}
    assert settings.cache_dir == mounts["cache"]


def test_the_pods_have_time_to_drain() -> None:
    kind, seconds = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert kind == "sleep"
    settings = settings_from(container()["args"], {})
    assert pod()["terminationGracePeriodSeconds"] > float(seconds) + settings.grace


def test_the_manifests_mean_the_same_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    budget, deployment, service = (
        manifest(kind)["spec"] for kind in ("PodDisruptionBudget", "Deployment", "Service")
    )
    assert budget["selector"]["matchLabels"] == labels
    assert deployment["selector"]["matchLabels"] == labels
    assert service["selector"] == labels
    assert service["clusterIP"] == "None", "clients see the pods' addresses"
    assert 0 < budget["minAvailable"] < deployment["replicas"]
    [user] = instructions("USER")
    assert user == f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}"
