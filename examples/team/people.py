"""Give people access to a team's MLflow server, which runs with basic auth; to be run by its administrator.

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=…
    python examples/team/people.py add ann ben          # they train, register and promote
    python examples/team/people.py add eve --read-only  # reads, as a server of models does
    python examples/team/people.py remove ben

Prints each new user's password, once. Those who are not read-only have the role `team`: EDIT on every experiment and
every registered model. Everybody else has `default_permission` of basic_auth.ini.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from typing import Any

ROLE = "team"
MAY = (("experiment", "EDIT"), ("registered_model", "EDIT"))
WORKSPACE = "default"  # what MLflow calls the only one of a server that has no others


class RefusedError(Exception):
    """The server did not do it; says why."""


class Administrator:
    """The user in MLFLOW_TRACKING_USERNAME, who may do anything."""

    def __init__(self) -> None:
        self.uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
        known = f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
        self._known = base64.b64encode(known.encode()).decode()

    def add(self, name: str, read_only: bool) -> str:
        """A new user; the password."""
        password = secrets.token_urlsafe(16)
        self._ask("POST", "2.0/mlflow/users/create", username=name, password=password)
        if not read_only:
            self._ask("POST", "3.0/mlflow/roles/assign", username=name, role_id=self._role())
        return password

    def remove(self, name: str) -> None:
        self._ask("DELETE", "2.0/mlflow/users/delete", username=name)

    def _role(self) -> int:
        """The id of the role, which is made if need be."""
        for role in self._ask("GET", f"3.0/mlflow/roles/list?workspace={WORKSPACE}")["roles"]:
            if role["name"] == ROLE:
                return int(role["id"])
        made = self._ask("POST", "3.0/mlflow/roles/create", name=ROLE, workspace=WORKSPACE)["role"]["id"]
        for kind, permission in MAY:
            self._ask(
                "POST",
                "3.0/mlflow/roles/permissions/add",
                role_id=made,
                resource_type=kind,
                resource_pattern="*",
                permission=permission,
            )
        return int(made)

    def _ask(self, method: str, path: str, **values: object) -> Any:
        request = urllib.request.Request(f"{self.uri}/api/{path}", method=method)
        request.add_header("Authorization", f"Basic {self._known}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, json.dumps(values).encode() if values else None) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise RefusedError(f"{self.uri} answers {error.code}: {_first_line(error.read())}") from error
        except urllib.error.URLError as error:
            raise RefusedError(f"{self.uri} does not answer: {error.reason}") from error


def _first_line(answer: bytes) -> str:
    """Of what the server says: in further lines MLflow quotes its database, the new password's hash included."""
    text = answer.decode(errors="replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):  # it is text as it stands
        text = str(json.loads(text)["message"])
    return text.splitlines()[0] if text else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("add", "remove"))
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--read-only", action="store_true", help="without the role")
    given = parser.parse_args()
    missing = [
        name
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        if not os.environ.get(name)
    ]
    if missing:
        print(f"error: set {', '.join(missing)} to those of the administrator", file=sys.stderr)
        return 2
    try:
        administrator = Administrator()
        for name in given.names:
            if given.what == "add":
                print(f"{name}\t{administrator.add(name, given.read_only)}")
            else:
                administrator.remove(name)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
