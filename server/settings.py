"""How the server runs: one frozen dataclass, filled from flags, then the environment, then defaults.

python -m server --port 50052          the field `port` by flag
WIDEDEEP_PORT=50052 python -m server   the same by environment
port = 50052                           the same by a line of the --settings-file, which is TOML

Flags win over the environment, that over the file. On SIGHUP all are read anew: what is `live` changes at once, if
nothing is wrong with any of them, and the rest is logged as waiting for a restart.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from server import addresses
from server.traffic import Traffic
from widedeep.errors import ConfigError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"


def _setting(
    default: Any,
    text: str,
    within: tuple[float, float] | None = None,
    one_of: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """
    within  the least and the largest value
    one_of  the values that it may have
    live    it may change while the server runs
    """
    about = f"{text}: {', '.join(one_of)}" if one_of else text
    return field(default=default, metadata={"help": about, "within": within, "one_of": one_of, "live": live})


@dataclass(frozen=True)
class ServerSettings:
    """Raises ConfigError for a value out of range."""

    model: str = _setting(
        "models:/widedeep@champion",
        "models:/NAME@ALIAS, models:/NAME@ALIAS=95,OTHER=5 by weights, models:/NAME/VERSION or a .pth bundle's path",
        live=True,
    )
    shadow: str = _setting(
        "", "alias that is scored beside the model and never returned; empty: none", live=True
    )
    shadow_share: float = _setting(
        1.0, "share of the requests that the shadow gets, too", within=(0, 1), live=True
    )
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(50051, "port to listen on; 0 takes a free one and prints it", within=(0, 65_535))
    workers: int = _setting(1, "processes that share the port, each with the model (Linux)", within=(1, 256))
    tls_cert: str = _setting("", "PEM file of the certificate, with its chain; empty: no TLS")
    tls_key: str = _setting("", "PEM file of the certificate's key")
    tls_client_ca: str = _setting(
        "", "PEM file of the CAs that clients' certificates must come from; empty: none are asked for"
    )
    insecure: bool = _setting(False, "listen beyond this machine without TLS, where a proxy encrypts")
    tokens_file: str = _setting("", "file of `python -m server.tokens`; empty: nobody is asked for a token")
    rate_limit: float = _setting(
        0.0,
        "calls and messages a second of one caller, unless its token says more; 0: no limit",
        within=(0, 10**6),
    )
    rate_burst: int = _setting(
        0, "calls and messages that may come at once; 0: a second's worth", within=(0, 10**6)
    )
    max_connections: int = _setting(1000, "open connections; more are hung up on", within=(1, 10**6))
    max_streams: int = _setting(
        256, "calls in flight on one connection; beyond, clients wait or get UNAVAILABLE", within=(1, 10**6)
    )
    max_connection_age: float = _setting(
        0.0, "seconds after which a client has to connect anew, to be balanced; 0: never", within=(0, 10**6)
    )
    default_deadline: float = _setting(
        30.0, "seconds for calls and messages that say no deadline", within=(0.001, 86_400)
    )
    max_deadline: float = _setting(
        300.0, "seconds for calls that say a longer one; streams as a whole have none", within=(0.001, 86_400)
    )
    device: str = _setting("auto", "auto, cpu, cuda or mps; auto takes cuda, else mps, else cpu")
    tracking_uri: str = _setting(
        "", f"MLflow's store, for models:/ URIs; empty: MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING_URI}"
    )
    exact_up_to: int = _setting(
        200_000,
        "items that are all ranked; of more an index finds candidates, where the extra `ann` is installed",
        within=(1, 2**31 - 1),
    )
    precision: str = _setting(
        "auto",
        "in which the best items are found; auto takes bfloat16 on a GPU that has it, if it keeps the top 100",
        one_of=("auto", "float32", "bfloat16"),
    )
    poll_seconds: float = _setting(
        2.0, "seconds between two looks at the alias", within=(0.01, 86_400), live=True
    )
    cache_models: bool = _setting(True, "keep the last bundles that were downloaded")
    cache_dir: str = _setting("", "where to keep them; empty: widedeep/models in the user's cache folder")
    serve_cached_model: bool = _setting(
        True, "start with the last good bundle of the cache if what is asked for cannot be had"
    )
    webhook_port: int = _setting(
        0,
        "port to listen on for MLflow's signed webhook model_version_alias.created; 0: none",
        within=(0, 65_535),
    )
    webhook_host: str = _setting("127.0.0.1", "address to listen on for webhooks")
    webhook_secret_file: str = _setting(
        "", "file with the webhook's secret; empty: the variable WIDEDEEP_WEBHOOK_SECRET"
    )
    webhook_secret: str = field(
        default="", repr=False, metadata={"flag": False}
    )  # flags are seen by all users
    admin_port: int = _setting(
        0, "port to listen on for operators: reload, pin, drain; 0: none", within=(0, 65_535)
    )
    admin_host: str = _setting(
        "127.0.0.1", "address to listen on for operators; beyond this machine with tokens alone"
    )
    grace: float = _setting(
        10.0, "seconds that calls in flight have to end after SIGTERM", within=(0, 86_400), live=True
    )
    max_k: int = _setting(1000, "items in a ranking", within=(1, 1000), live=True)
    max_items: int = _setting(10_000, "ids in each list of a request", within=(1, 10**6), live=True)
    max_history: int = _setting(10_000, "items in a request's history", within=(1, 10**6), live=True)
    max_id_length: int = _setting(256, "characters in an id", within=(1, 10**5), live=True)
    max_message_bytes: int = _setting(4 * 2**20, "size of a request", within=(1024, 2**31 - 1))
    max_concurrent_calls: int = _setting(
        1000, "calls in flight, streams included; more get RESOURCE_EXHAUSTED", within=(1, 10**6)
    )
    max_wait: float = _setting(
        1.0,
        "seconds of work that may wait; calls beyond get RESOURCE_EXHAUSTED, streams are held back",
        within=(0.001, 3600),
        live=True,
    )
    queued_scores: int = _setting(
        200_000,
        "items that may wait to be scored; requests beyond get RESOURCE_EXHAUSTED",
        within=(1, 10**9),
        live=True,
    )
    scores_at_once: int = _setting(
        8192, "items scored in one go, of as many requests as wait", within=(1, 10**7), live=True
    )
    queued_rankings: int = _setting(
        4096,
        "rankings that may wait, those with reasons counted as 50; requests beyond get RESOURCE_EXHAUSTED",
        within=(1, 10**6),
        live=True,
    )
    rankings_at_once: int = _setting(
        64, "rankings made in one go, of as many requests as wait", within=(1, 10**4), live=True
    )
    stream_in_flight: int = _setting(
        64,
        "messages of a stream that the server holds, unanswered or unread, before it reads the next",
        within=(1, 10**5),
        live=True,
    )
    stream_idle: float = _setting(
        300.0, "seconds without a message after which a stream is ended", within=(0.01, 10**6), live=True
    )
    stream_stall: float = _setting(
        30.0,
        "seconds an answer may wait to be read before the stream is cut off",
        within=(0.01, 10**6),
        live=True,
    )
    metrics_port: int = _setting(
        0, "port for /metrics, /livez and /readyz over HTTP; 0: none", within=(0, 65_535)
    )
    metrics_host: str = _setting("127.0.0.1", "address to listen on for them")
    otlp_endpoint: str = _setting(
        "", "receiver of traces, such as http://localhost:4318; needs the extra `otel`; empty: none"
    )
    settings_file: str = _setting("", "TOML file of settings, read again on SIGHUP; empty: none")
    log_level: str = _setting(
        "info", "least level that is logged", one_of=("debug", "info", "warning", "error"), live=True
    )
    log_format: str = _setting("text", "of a line; json: an object", one_of=("text", "json"))
    log_requests: str = _setting("errors", "requests with a line in the log", one_of=("off", "errors", "all"))
    log_requests_most: int = _setting(50, "such lines a second; the rest is counted", within=(1, 10**6))

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model is empty. Give --model models:/NAME@ALIAS or the path of a .pth bundle.")
        if not self.host:
            raise ConfigError("host is empty. Give --host 127.0.0.1, or --host 0.0.0.0 for every interface.")
        if self.admin_port and not addresses.is_loopback(self.admin_host) and not self.tokens_file:
            raise ConfigError(
                f"--admin-host {self.admin_host} can be reached from other machines: give --tokens-file, too."
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("A certificate and its key go together: give both --tls-cert and --tls-key.")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError(
                "--tls-client-ca asks clients for certificates, which needs TLS: give --tls-cert and --tls-key, too."
            )
        for item in dataclasses.fields(self):
            value, one_of = getattr(self, item.name), item.metadata.get("one_of")
            if one_of and value not in one_of:
                raise ConfigError(f"{item.name} must be one of {', '.join(one_of)}; got {value!r}.")
            if within := item.metadata.get("within"):
                low, high = within
                if not low <= value <= high:  # NaN fails too
                    raise ConfigError(f"{flag_of(item.name)} must be from {low:g} to {high:g}, got {value}.")

        Traffic.of(self.model, self.shadow)

    @property
    def address(self) -> str:
        """host:port, in brackets for IPv6."""
        return addresses.joined(self.host, self.port)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")
