"""Lives that go on: the states that a user or a withdrawal passes through, one step per pace."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_quoine.sandbox.refusals import Refusal


@dataclass(kw_only=True)
class Life:
    """
    Where something stands, and what lies ahead of it.

    Steps are computed when somebody looks, from the time of the last one: exact at any pace, with no task running.

    :param path: the states that it passes through, first to last
    :param state: where it stands; a state outside of ``path`` stays until somebody moves it
    :param since: when it came there, in Unix seconds
    """

    path: tuple[str, ...]
    state: str
    since: float

    @classmethod
    def begin(cls, path: tuple[str, ...], now: float) -> Life:
        """
        Begin at the first state.

        :param path: all the states
        :param now: Unix seconds
        """
        return cls(path=path, state=path[0], since=now)

    @property
    def ahead(self) -> tuple[str, ...]:
        """The states to come, in order."""
        return self.path[self.path.index(self.state) + 1 :] if self.state in self.path else ()

    def settle(self, *, now: float, pace: float | None) -> None:
        """
        Take the steps that are due.

        :param now: Unix seconds
        :param pace: seconds per step; None takes none
        """
        while pace is not None and self.ahead and now - self.since >= pace:
            self.put(self.ahead[0], now=self.since + pace)

    def advance(self, *, now: float) -> None:
        """
        Take the next step.

        :param now: Unix seconds
        :raises Refusal: 409 when nothing lies ahead
        """
        if not self.ahead:
            raise Refusal(409, {"message": f"Nothing lies ahead of {self.state}"})
        self.put(self.ahead[0], now=now)

    def put(self, state: str, *, now: float) -> None:
        """
        Put it into any state, on record or not.

        :param state: the state
        :param now: Unix seconds
        """
        self.state = state
        self.since = now
