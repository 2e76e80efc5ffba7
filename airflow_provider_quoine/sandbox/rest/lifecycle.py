"""Lifecycles: the states that a user or a withdrawal passes through, one step per pace."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_quoine.sandbox.refusals import Refusal


@dataclass(kw_only=True)
class Lifecycle:
    """
    The current state and the states that follow. Times are Unix seconds.

    Steps that are due are taken when the state is read, each at its exact time. No background task runs.

    :param path: all states, first to last; it begins at the first
    :param since: time of the last change
    :ivar state: the current state; a state that is not in ``path`` stays until it is set by hand
    """

    path: tuple[str, ...]
    since: float
    state: str = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.path[0]

    @property
    def remaining(self) -> tuple[str, ...]:
        """The states that follow, in order."""
        return self.path[self.path.index(self.state) + 1 :] if self.state in self.path else ()

    def advance_due(self, *, now: float, pace: float | None) -> None:
        """
        Take all steps that are due.

        :param pace: seconds per step; with None, nothing is ever due
        """
        while pace is not None and self.remaining and now - self.since >= pace:
            self.set_state(self.remaining[0], now=self.since + pace)

    def advance(self, *, now: float) -> None:
        """Take the next step, due or not. Raises Refusal: 409 if no state follows."""
        if not self.remaining:
            raise Refusal(409, {"message": f"No state follows {self.state}"})
        self.set_state(self.remaining[0], now=now)

    def set_state(self, state: str, *, now: float) -> None:
        """Set any state, documented or not."""
        self.state = state
        self.since = now
