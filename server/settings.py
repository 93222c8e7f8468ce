"""How the server runs: one frozen dataclass, filled from flags, then the environment, then defaults.

python -m server --port 50052          the field `port` by flag
WIDEDEEP_PORT=50052 python -m server   the same by environment
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from widedeep import config
from widedeep.errors import ConfigError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
PRECISIONS = ("auto", "float32", "bfloat16")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _setting(default: typing.Any, text: str) -> typing.Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServerSettings:
    """Raises ConfigError for a value out of range."""

    model: str = _setting(
        "models:/widedeep@champion", "models:/NAME@ALIAS, models:/NAME/VERSION or the path of a .pth bundle"
    )
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(50051, "port to listen on; 0 takes a free one and prints it")
    device: str = _setting("auto", "auto, cpu, cuda or mps; auto takes cuda, else mps, else cpu")
    tracking_uri: str = _setting(
        "", f"MLflow's store, for models:/ URIs; empty: MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING_URI}"
    )
    exact_up_to: int = _setting(
        200_000,
        "items that are all ranked; of more an index finds candidates, where the extra `ann` is installed",
    )
    precision: str = _setting(
        "auto", "of item vectors: float32, bfloat16, or auto: bfloat16 where it is fast and keeps the top 100"
    )
    poll_seconds: float = _setting(2.0, "seconds between two looks at the alias")
    cache_models: bool = _setting(True, "keep the last bundles that were downloaded")
    cache_dir: str = _setting("", "where to keep them; empty: widedeep/models in the user's cache folder")
    serve_cached_model: bool = _setting(
        True, "start with the last good bundle of the cache if what is asked for cannot be had"
    )
    webhook_port: int = _setting(
        0, "port to listen on for MLflow's signed webhook model_version_alias.created; 0: none"
    )
    webhook_host: str = _setting("127.0.0.1", "address to listen on for webhooks")
    webhook_secret_file: str = _setting(
        "", "file with the webhook's secret; empty: the variable WIDEDEEP_WEBHOOK_SECRET"
    )
    webhook_secret: str = field(
        default="", repr=False, metadata={"flag": False}
    )  # flags are seen by all users
    grace: float = _setting(10.0, "seconds that calls in flight have to end after SIGTERM")
    max_k: int = _setting(1000, "items in a ranking")
    max_items: int = _setting(10_000, "ids in each list of a request")
    max_history: int = _setting(10_000, "items in a request's history")
    max_id_length: int = _setting(256, "characters in an id")
    max_message_bytes: int = _setting(4 * 2**20, "size of a request")
    max_concurrent_calls: int = _setting(
        1000, "calls in flight, streams included; more get RESOURCE_EXHAUSTED"
    )
    queued_scores: int = _setting(
        200_000, "items that may wait to be scored; requests beyond get RESOURCE_EXHAUSTED"
    )
    scores_at_once: int = _setting(8192, "items scored in one go, of as many requests as wait")
    queued_rankings: int = _setting(
        4096,
        "rankings that may wait, those with reasons counted as 50; requests beyond get RESOURCE_EXHAUSTED",
    )
    rankings_at_once: int = _setting(32, "rankings made in one go, of as many requests as wait")
    stream_in_flight: int = _setting(
        64, "messages of a stream that the server holds, unanswered or unread, before it reads the next"
    )
    stream_idle: float = _setting(300.0, "seconds without a message after which a stream is ended")
    stream_stall: float = _setting(30.0, "seconds an answer may wait to be read before the stream is cut off")
    log_level: str = _setting("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model is empty. Give --model models:/NAME@ALIAS or the path of a .pth bundle.")
        if not self.host:
            raise ConfigError("host is empty. Give --host 127.0.0.1, or --host 0.0.0.0 for every interface.")
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"log_level must be one of {', '.join(LOG_LEVELS)}; got {self.log_level!r}.")
        self._within("port", 0, 65_535)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        self._within("exact_up_to", 1, 2**31 - 1)
        self._within("poll_seconds", 0.01, 86_400)
        self._within("webhook_port", 0, 65_535)
        self._within("grace", 0, 86_400)
        self._within("max_k", 1, 1000)
        self._within("max_items", 1, 10**6)
        self._within("max_history", 1, 10**6)
        self._within("max_id_length", 1, 10**5)
        self._within("max_message_bytes", 1024, 2**31 - 1)
        self._within("max_concurrent_calls", 1, 10**6)
        self._within("queued_scores", 1, 10**9)
        self._within("scores_at_once", 1, 10**7)
        self._within("queued_rankings", 1, 10**6)
        self._within("rankings_at_once", 1, 10**4)
        self._within("stream_in_flight", 1, 10**5)
        self._within("stream_idle", 0.01, 10**6)
        self._within("stream_stall", 0.01, 10**6)

    def the_webhook_secret(self) -> str:
        """Raises  ConfigError: there is none"""
        secret = self.webhook_secret
        if self.webhook_secret_file:
            try:
                secret = Path(self.webhook_secret_file).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"--webhook-secret-file {self.webhook_secret_file} cannot be read: {error}."
                ) from error
        if not secret:
            raise ConfigError(
                "--webhook-port needs the secret that MLflow signs with: anybody could call it otherwise. "
                "Set WIDEDEEP_WEBHOOK_SECRET or --webhook-secret-file."
            )
        return secret

    @property
    def address(self) -> str:
        """host:port, in brackets for IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def from_arguments(
        cls, arguments: Sequence[str] | None, environment: Mapping[str, str]
    ) -> ServerSettings:
        """Flags win over WIDEDEEP_… variables, those over defaults.

        arguments  None: this process's own
        Raises     ConfigError; SystemExit(2) from argparse for an unknown flag
        """
        parser = argparse.ArgumentParser(
            prog="python -m server",
            description="Serve a model over gRPC. Environment variables do the same: WIDEDEEP_MAX_K is --max-k.",
            allow_abbrev=False,
        )
        for item in dataclasses.fields(cls):
            if not item.metadata.get("flag", True):
                continue
            parser.add_argument(
                _flag(item.name),
                metavar=item.name.upper(),
                help=f"{item.metadata['help']} (default: {item.default!r})",
            )
        given = parser.parse_args(arguments)
        hints = typing.get_type_hints(cls)
        values = {}
        for name, hint in hints.items():
            variable = f"WIDEDEEP_{name.upper()}"
            if (text := getattr(given, name, None)) is not None:
                values[name] = config.parse(_flag(name), text, hint)
            elif environment.get(variable):
                values[name] = config.parse(variable, environment[variable], hint)
        if not values.get("tracking_uri"):
            values["tracking_uri"] = environment.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
        return cls(**values)

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # NaN fails too
            raise ConfigError(f"{_flag(name)} must be from {low:g} to {high:g}, got {value}.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
