"""Lifecycles: the states that a user or a withdrawal passes through, one step per pace."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_quoine.sandbox.refusals import Refusal


@dataclass(kw_only=True)
class Lifecycle:
    """
    The current state and the states that follow.

    Steps that are due are taken when the state is read, each at its exact time. No background task runs.

    :param path: all states, first to last
    :param state: the current state; a state that is not in ``path`` stays until it is set by hand
    :param since: time of the last change, in Unix seconds
    """

    path: tuple[str, ...]
    state: str
    since: float

    @classmethod
    def begin(cls, path: tuple[str, ...], now: float) -> Lifecycle:
        """
        Begin at the first state.

        :param path: all states, first to last
        :param now: Unix seconds
        """
        return cls(path=path, state=path[0], since=now)

    @property
    def remaining(self) -> tuple[str, ...]:
        """The states that follow, in order."""
        return self.path[self.path.index(self.state) + 1 :] if self.state in self.path else ()

    def advance_due(self, *, now: float, pace: float | None) -> None:
        """
        Take all steps that are due.

        :param now: Unix seconds
        :param pace: seconds per step; with None, nothing is ever due
        """
        while pace is not None and self.remaining and now - self.since >= pace:
            self.set_state(self.remaining[0], now=self.since + pace)

    def advance(self, *, now: float) -> None:
        """
        Take the next step, due or not.

        :param now: Unix seconds
        :raises Refusal: 409 if no state follows
        """
        if not self.remaining:
            raise Refusal(409, {"message": f"No state follows {self.state}"})
        self.set_state(self.remaining[0], now=now)

    def set_state(self, state: str, *, now: float) -> None:
        """
        Set any state, documented or not.

        :param state: the new state
        :param now: Unix seconds
        """
        self.state = state
        self.since = now
