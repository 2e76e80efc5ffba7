"""What tasks have told Airflow by asset events."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset


def asset_events(asset: Asset, *, run_id: str | None = None) -> list[dict[str, Any]]:
    """
    Read the ``extra`` of each event of an asset.

    :param run_id: only those that this run has made.
    """
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        events = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        events = events.filter(AssetModel.name == asset.name, AssetModel.uri == asset.uri)
        if run_id is not None:
            events = events.filter(AssetEvent.source_run_id == run_id)
        return [dict(event.extra) for event in events.order_by(AssetEvent.id)]
