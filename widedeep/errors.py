"""Every error that a caller may want to catch.

WideDeepError
├── ConfigError              a setting is out of range, of the wrong type or unknown
├── DataError                the data cannot be used
│   ├── DataNotFoundError    a file, a folder or a release is missing, empty or laid out differently
│   ├── DownloadError        a release could not be fetched, or what came is not what was asked for
│   ├── InvalidRowsError     rows that are not interactions: says which, and on what lines
│   ├── EmptyDataError       a step left too little to go on: says which step
│   └── DriftError           the data are not like those that the model in use was made from
├── BundleError              a model file is damaged, foreign, pickled or of another version
├── TrainingError            the training diverged, or one of its processes is gone
├── DeviceError              the device that was asked for is not there
├── RequestError             a query that cannot be answered; `field` names the part of it
│   ├── InvalidQueryError    a value that is out of range or of the wrong kind
│   ├── UnknownItemError     items that the model has never heard of
│   └── ColdStartError       the answer would not be personal, and the query forbids any other; `reason` says why
├── TrackingError            the tracking server or its store cannot be reached
├── RegistryError            a model, version or alias that is not in the registry
├── GateError                a version did not earn its alias
│   └── ChampionMovedError   another took the alias while the version was judged
└── ReproductionError        a run cannot be trained again, or did not come out as before

The message says what is wrong, what came, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from widedeep.queries import ColdStart


class WideDeepError(Exception):
    """The root: catch it to show a person the message and nothing else."""


class ConfigError(WideDeepError):
    """A setting is out of range, of the wrong type or unknown."""


class DataError(WideDeepError):
    """The data cannot be used."""


class DataNotFoundError(DataError):
    """A file, a folder or a release is missing, empty or laid out differently."""


class DownloadError(DataError):
    """A release could not be fetched, or what came is not what was asked for."""


class InvalidRowsError(DataError):
    """Rows that are not interactions."""


class EmptyDataError(DataError):
    """A step left too little to go on."""


class DriftError(DataError):
    """The data are not like those that the model in use was made from."""


class BundleError(WideDeepError):
    """A model file is damaged, foreign, pickled or of another version."""


class TrainingError(WideDeepError):
    """The training diverged, or one of its processes is gone."""


class DeviceError(WideDeepError):
    """The device that was asked for is not there."""


class RequestError(WideDeepError):
    """A query that cannot be answered; `field` names the part of it that is at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.description = message


class InvalidQueryError(RequestError):
    """A value in a query is out of range or of the wrong kind."""


class UnknownItemError(RequestError):
    """Items that the model has never heard of."""


class ColdStartError(RequestError):
    """The answer would not be personal, and the query asks for an error then."""

    def __init__(self, field: str, reason: ColdStart) -> None:
        super().__init__(
            field,
            f"no personal answer is possible: {reason}. Give a history with likes, or allow popularity.",
        )
        self.reason = reason


class TrackingError(WideDeepError):
    """The tracking server or its store cannot be reached."""


class RegistryError(WideDeepError):
    """A model, a version or an alias that is not in the registry."""


class GateError(WideDeepError):
    """A version did not earn its alias."""


class ChampionMovedError(GateError):
    """Another version took the alias while this one was judged."""


class ReproductionError(WideDeepError):
    """A run cannot be trained again, or did not come out as before."""
