"""What of the settings may change while the server runs, and what needs a restart."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from server.settings import ServerSettings
from server.traffic import Traffic


@dataclass(frozen=True)
class Change:
    """From the settings that hold to others.

    settings  that hold from now on: what needs a restart is as it was
    names     of what has changed
    waiting   of what needs a restart
    """

    settings: ServerSettings
    names: list[str]
    waiting: list[str]

    @classmethod
    def between(cls, current: ServerSettings, wanted: ServerSettings) -> Change:
        """Raises  ConfigError: without what needs a restart, the rest is not whole"""
        fields = dataclasses.fields(ServerSettings)
        differing = [item for item in fields if getattr(current, item.name) != getattr(wanted, item.name)]
        live = {item.name: getattr(wanted, item.name) for item in differing if item.metadata.get("live")}
        if "model" in live and not (_is_registered(current) and _is_registered(wanted)):
            live.pop("model")
        waiting = [item.name for item in differing if item.name not in live]
        return cls(dataclasses.replace(current, **live), list(live), waiting)


def _is_registered(settings: ServerSettings) -> bool:
    return Traffic.of(settings.model).main.is_registered
