"""A watcher's memory in Airflow's asset state store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.market.watcher_memory import WatcherMemory

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds that Airflow has to answer: an event waits for it."""
FIRST_TIMEOUT = 60.0
"""Seconds that it has for the first answer: a triggerer that starts is slow, and what is stored is worth it."""
RETRY_AFTER = 60.0
"""Seconds without the store after it has failed, so that events do not wait for it each time."""


class WatcherStore:
    """
    The place of one watcher's memory. It never fails: without the store a watcher goes on as well as it can.

    :param store: of the asset that the watcher belongs to; None if Airflow gives it none.
    :param key: of the memory, which depends on what is watched.
    """

    def __init__(self, store: AssetStateStoreAccessors | None, key: str) -> None:
        self._store = store
        self._key = key
        self._problem = ""
        self._retry_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether it may be asked now."""
        return self._store is not None and asyncio.get_running_loop().time() >= self._retry_at

    async def read(self, *, within: float = TIMEOUT) -> WatcherMemory:
        """
        Return what is stored; an empty memory if there is nothing, or if it cannot be read.

        :param within: seconds that Airflow has to answer.
        """
        stored = None
        if self._store is not None and self.usable:
            try:
                async with asyncio.timeout(within):
                    stored = await self._store.aget(self._key)
            except Exception as error:  # noqa: BLE001 - whatever Airflow's store does, the watcher goes on
                self._note(error)
        try:
            return WatcherMemory.of(stored) if stored else WatcherMemory()
        except ValueError as error:
            log.warning(
                "Under %s Airflow's asset state store has what this watcher cannot read: %s. It knows nothing of what "
                "happened before, and writes its own there.",
                self._key,
                error,
            )
            return WatcherMemory()

    async def write(self, memory: WatcherMemory) -> None:
        """Store a memory."""
        if self._store is not None and self.usable:
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self._store.aset(self._key, memory.as_json())
                self._problem = ""
            except Exception as error:  # noqa: BLE001 - as above
                self._note(error)

    def _note(self, error: Exception) -> None:
        problem = str(error) or repr(error)
        if problem != self._problem:
            log.warning(
                "What the watcher %s knows cannot be kept in Airflow's asset state store: %s. It goes on; what happens "
                "during a restart of the triggerer is told to nobody then. Is the asset the only one of this watcher? "
                "The next try is in %g s.",
                self._key,
                problem,
                RETRY_AFTER,
            )
        self._problem, self._retry_at = problem, asyncio.get_running_loop().time() + RETRY_AFTER
