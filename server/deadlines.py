"""How long a call may take."""

from __future__ import annotations

from dataclasses import dataclass

from server.settings import ServerSettings


@dataclass(frozen=True)
class Deadlines:
    """In seconds.

    default  for a call or a message that comes without a deadline
    longest  for a call that comes with a later one
    """

    default: float
    longest: float

    @classmethod
    def of(cls, settings: ServerSettings) -> Deadlines:
        return cls(min(settings.default_deadline, settings.max_deadline), settings.max_deadline)

    def within(self, remaining: float | None) -> float:
        """What a call has, of what its client gives it; None: the client does not say."""
        return self.default if remaining is None else min(remaining, self.longest)
