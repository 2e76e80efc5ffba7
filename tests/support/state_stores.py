"""Airflow's own asset state store, asked as a triggerer and a worker ask it, without a process for either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow.sdk import Asset


class _Comms:
    """Answers with Airflow's own handlers, from the database of the tests."""

    def __init__(self) -> None:
        from airflow.sdk.api.client import Client
        from airflow.sdk.execution_time.supervisor import in_process_api_server

        self._client = Client(base_url=None, token="", dry_run=True, transport=in_process_api_server().transport)
        self._client.base_url = "http://in-process.invalid./"

    def send(self, message: Any) -> Any:
        """Ask as a task does."""
        from airflow.sdk.execution_time import comms, request_handlers

        if isinstance(message, comms.GetAssetStateStoreByName):
            answer, _ = request_handlers.handle_get_asset_state_store_by_name(self._client, message)
            return answer
        assert isinstance(message, comms.SetAssetStateStoreByName)
        return request_handlers.handle_set_asset_state_store_by_name(self._client, message)

    async def asend(self, message: Any) -> Any:
        """Ask as a trigger does."""
        return await asyncio.to_thread(self.send, message)


@contextmanager
def state_stores(*assets: Asset) -> Iterator[Any]:
    """
    Give what triggers and tasks get to the state of these assets. Needs the fixture ``airflow_database``.

    :param assets: known to Airflow from then on, as those of a DAG are.
    """
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors
    from airflow.utils.session import create_session

    with create_session() as session:
        for asset in assets:
            known = {"name": asset.name, "uri": asset.uri}
            # Other tests of this process may have made it known.
            for model in (AssetModel, AssetActive):
                if not session.query(model).filter_by(**known).count():
                    session.add(model(**known))
                    session.flush()
    with mock.patch.object(task_runner, "SUPERVISOR_COMMS", _Comms(), create=True):
        stores = AssetStateStoreAccessors(inlets=list(assets))
        # The first answer takes seconds, because Airflow makes the server that gives it.
        stores[assets[0]].get("nothing")
        yield stores


def consumer_context(came: Mapping[Asset, Sequence[dict[str, Any]]], *, stores: Any, run: str = "run") -> Any:
    """
    Return what a task sees of a run that events have started.

    :param came: payloads of watchers' events, by asset.
    """
    events = {
        asset: [SimpleNamespace(extra={"payload": each}) for each in payloads] for asset, payloads in came.items()
    }
    return {
        "run_id": run,
        "ti": SimpleNamespace(dag_id="consumer", task_id="take"),
        "triggering_asset_events": events,
        "asset_state_store": stores,
    }
