"""The page of an order book or a capture, beside the task that took it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from decimal import Decimal
from itertools import zip_longest
from operator import itemgetter
from statistics import median_low
from typing import Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.sdk import ObjectStoragePath
from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response

from airflow_provider_quoine.datasets.depth import Depth, NoBookError, read_depth
from airflow_provider_quoine.datasets.reading import StoredCapture
from airflow_provider_quoine.datasets.timeline import Timeline, TimelineError, longest, read_timeline, stored_manifest
from airflow_provider_quoine.formats.manifest import as_bytes
from airflow_provider_quoine.operators import capture, market_data
from airflow_provider_quoine.operators.capture import folder_of
from airflow_provider_quoine.plugins.access import TasksReader
from airflow_provider_quoine.plugins.pages import page
from airflow_provider_quoine.plugins.results import NoResultError, TaskResult, result_of

router = APIRouter()

PATH = "/book/{dag_id}/{run_id}/{task_id}/{map_index}"
BOOKS = {market_data.QuoineOrderBookSnapshotOperator.__name__}
CAPTURES = {
    each.__name__
    for each in (
        capture.QuoineCaptureOrderBookOperator,
        capture.QuoineCaptureProductOperator,
        capture.QuoineCaptureExecutionsOperator,
        capture.QuoineCaptureEventsOperator,
    )
}
LEVELS = 100
"""Levels of a side in the table; the exchange sends 40."""
GAPS = 200
"""Gaps in the table."""
LONGEST_PATH = 2000
NO_TASK = "There is no such task."
_PLACE = re.compile(
    r"(?P<root>(/|[a-z0-9][a-z0-9+.-]*://)[^\0-\x1f*]*)/(?P<stem>[\w.-]+_\d{8}T\d{6}(\.\d+)?Z)_\*\.[a-z.]+"
)
"""The ``path`` of a capture's summary."""


@router.get(PATH)
def book(user: TasksReader, dag_id: str, run_id: str, task_id: str, map_index: str) -> HTMLResponse:
    """Show the order book or the capture that a task has returned, or say that it has none."""
    key: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": _number(map_index)}
    task = _task(**key)
    try:
        if task.operator in BOOKS:
            return _book_page(user, read_depth(task.value()))
        if task.operator in CAPTURES:
            return _capture_page(user, _capture(task, **key), key)
    except NoBookError as error:
        words = f"The result of this task is no order book as its operator returns it: {error}."
    except (NoResultError, TimelineError) as error:
        words = str(error)
    else:
        words = ""
    return page("no_book.html", user=user, operator=task.operator, words=words)


@router.get(f"{PATH}/manifest")
def manifest(_user: TasksReader, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
    """
    Return the manifest of a capture.

    :raises HTTPException: 404 if there is none that can be read.
    """
    key: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": _number(map_index)}
    task = _task(**key)
    if task.operator not in CAPTURES:
        raise HTTPException(404, "This task has captured nothing.")
    try:
        content = as_bytes(stored_manifest(_capture(task, **key)))
    except (NoResultError, TimelineError) as error:
        raise HTTPException(404, str(error)) from None
    return Response(content, media_type="application/json")


def _book_page(user: BaseUser, depth: Depth) -> HTMLResponse:
    ladder = list(zip_longest(depth.bids[:LEVELS], depth.asks[:LEVELS]))
    return page("book.html", user=user, depth=depth, ladder=ladder, chart=depth.as_chart())


def _capture_page(user: BaseUser, capture: StoredCapture, key: Mapping[str, Any]) -> HTMLResponse:
    line = read_timeline(capture)
    return page(
        "capture.html",
        user=user,
        line=line,
        gaps=longest(line.gaps, GAPS),
        seen=_seen(line),
        chart=line.as_chart(),
        pattern=shlex.quote(f"{capture}_*"),
        task=key,
    )


def _seen(line: Timeline) -> dict[str, Any]:
    """Return what the charts show; empty if they show nothing."""
    seen = [(Decimal(one.mid), Decimal(one.spread), one) for one in line.points if one.mid and one.spread]
    if not seen:
        return {}
    spreads = [spread for _, spread, _ in seen]
    return {
        "first": seen[0][2],
        "last": seen[-1][2],
        "lowest": min(seen, key=itemgetter(0))[2],
        "highest": max(seen, key=itemgetter(0))[2],
        "narrowest": min(spreads),
        "widest": max(spreads),
        "median": median_low(spreads),
        "crossed": sum(one.crossed for *_, one in seen),
        "stale": sum(one.stale for one in line.points),
    }


def _number(map_index: str) -> int:
    # Airflow's page leaves its placeholder as it is where a task is not mapped.
    if map_index in ("{MAP_INDEX}", "-1"):
        return -1
    if not re.fullmatch("[0-9]{1,9}", map_index):
        raise HTTPException(404, NO_TASK)
    return int(map_index)


def _task(**key: Any) -> TaskResult:
    task = result_of(**key)
    if task is None:
        raise HTTPException(404, NO_TASK)
    return task


def _capture(task: TaskResult, **key: Any) -> StoredCapture:
    """
    Return the capture that a task has returned.

    :raises NoResultError: if it has returned none, or the files of another task: an author can return any path.
    """
    result = task.value()
    path = result.get("path") if isinstance(result, dict) else None
    place = _PLACE.fullmatch(path) if isinstance(path, str) and len(path) <= LONGEST_PATH else None
    if place is None or ".." in place["root"].split("/") or not place["root"].endswith(f"/{folder_of(**key)}"):
        raise NoResultError("Its result is not the summary of a capture of this task, so no file was read.")
    try:
        return StoredCapture(root=ObjectStoragePath(place["root"]), stem=place["stem"])
    except (ImportError, ValueError) as error:
        raise NoResultError(f"The API server knows no store for {place['root']}: {error}.") from None
