"""What is wrong with an MLflow store, in words for people and without a password. MLflow itself is not needed here.

The texts that are looked for are those of MLflow 3.17, requests and psycopg 3.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

REASON_LENGTH = 300
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second is said of an alias
HIDDEN = "***"
# From the colon after the user to the last @ before a blank or a quote: a password may hold any other sign. After the
# colon of a web address there may be a port, and an @ behind it is something else: http://host:5000/#/models/m@champion
IN_ADDRESS = re.compile(
    r"(?:(?<=http://)|(?<=https://))[^\s:/@'\"]*:(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s'\"]+@"
    r"|(?<=://)(?<!http://)(?<!https://)[^\s:/@'\"]*:[^\s'\"]+@"
)
AS_SETTING = re.compile(r"(?i)\b(password|passwd|pwd|secret|token)=(?:'[^']*'|[^\s&;'\"]+)")


def masked(text: str) -> str:
    """The text without the passwords that stand in its addresses: `postgresql://ann:***@host/mlflow`."""
    hidden = IN_ADDRESS.sub(lambda found: f"{found[0].split(':')[0]}:{HIDDEN}@", text)
    return AS_SETTING.sub(rf"\1={HIDDEN}", hidden)


def without_user(address: str) -> str:
    """`http://host:5000` of `http://ann:secret@host:5000`, for a browser to ask."""
    scheme, mark, rest = address.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


class Trouble(NamedTuple):
    """reason: one line;  advice: sentences that say what to do, empty where nothing better is known than to look"""

    reason: str
    advice: str


def trouble(error: BaseException) -> Trouble:
    """What an error of MLflow, of its database or of its files means."""
    text = str(error)
    status = _status(text)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if status == 401:
        who = f"the user {user!r} with this password" if user else "you"
        return Trouble(
            f"it does not know {who} (401)",
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of a user of the server.",
        )
    if status == 403 and "Host header" in text:
        return Trouble(
            "it refuses to be called by this name (403)",
            "Call it by another, or start it with --allowed-hosts and this name.",
        )
    if status == 403:
        return Trouble(
            f"{f'the user {user!r} has' if user else 'you have'} no permission for that (403)",
            "Who manages the experiment and the registered model can give it (EDIT, to write to them); or use your "
            "own: --experiment NAME --register NAME.",
        )
    if "NewConnectionError" in text or "NameResolutionError" in text:
        return Trouble("nothing answers at that address", "")
    if "/mlflow-artifacts/" in text:
        return Trouble(
            "the server answers, but does not pass files on",
            "Its object storage is away or refuses it: the server's log says which. Try again when that is mended.",
        )
    if "too many 503 error responses" in text or status == 503:
        return Trouble(
            "the server answers, but has no database (503)",
            "Its log says why. Try again when the database is back.",
        )
    if "password authentication failed" in text or "no password supplied" in text:
        return Trouble(_line(text), "The database takes the password from PGPASSWORD or ~/.pgpass.")
    return Trouble(_line(text) or type(error).__name__, "")


def is_missing(error: BaseException, look_up_model: Callable[[], object]) -> bool:
    """Whether MLflow complains that there is no such alias, version or model.

    With basic auth it refuses (403) to say anything of the versions of a model that there is not.

    look_up_model  asks MLflow for the registered model
    """
    code = getattr(error, "error_code", "")
    if code == "PERMISSION_DENIED":
        try:
            look_up_model()
        except Exception as other:
            return getattr(other, "error_code", "") in MISSING
    return code in MISSING


def _status(text: str) -> int:
    """Of the HTTP answer; 0 where it cannot be told."""
    said = re.search(r"error code (\d{3}) != 200|^(\d{3}) (?:Client|Server) Error", text)
    return int(said.group(1) or said.group(2)) if said else 0


def _line(text: str) -> str:
    lines = text.strip().splitlines()
    return masked(lines[0])[:REASON_LENGTH].rstrip(".") if lines else ""
