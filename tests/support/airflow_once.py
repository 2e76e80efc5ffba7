"""What Airflow does again for each task and each DAG that tests run in one process, done once."""

from __future__ import annotations

import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any


def make_newest_version_only() -> None:
    """
    Have the API server of tasks speak its newest version only, the one that tasks in this process speak.

    It would make the routes of all nine, which takes three seconds of processor.
    """
    from airflow.api_fastapi.execution_api import routes, versions
    from cadwyn import HeadVersion, Version, VersionBundle
    from cadwyn.route_generation import _DELETED_ROUTE_TAG

    router = routes.execution_api_router
    # Routes that only older versions have.
    router.routes = [each for each in router.routes if _DELETED_ROUTE_TAG not in getattr(each, "tags", ())]
    every = versions.bundle
    # Airflow 3.4 asks the changes between versions which of them a request wants.
    versions.bundle = VersionBundle(
        HeadVersion(), Version(every.versions[0].value), api_version_var=every.api_version_var
    )


def leave_out_middlewares(app: Any) -> None:
    """
    Have the API server of tasks name no request in the log, and renew no token: in this process there is none.

    Both take a quarter of each request's processor time.
    """
    from airflow.api_fastapi.execution_api.app import CorrelationIdMiddleware, JWTReissueMiddleware

    kept = [each for each in app.user_middleware if each.cls not in (CorrelationIdMiddleware, JWTReissueMiddleware)]
    app.user_middleware = kept


def look_at_dependencies_once() -> None:
    """
    Have FastAPI keep what it reads from the signatures of an endpoint's dependencies.

    The API server of tasks in this process overrides some of them. FastAPI then reads the signatures of all anew, in
    each request: a third of a request's processor time.
    """
    from fastapi.dependencies import utils

    look = utils.get_dependant

    # Each task brings an override of its own, which no other asks for.
    @lru_cache(maxsize=500)
    def keep(scopes: tuple[str, ...], **asked: Any) -> Any:
        return look(parent_oauth_scopes=list(scopes), **asked)

    def look_once(**asked: Any) -> Any:
        # A request asks with these; what a route asks for when it is made is changed afterwards.
        if asked.keys() != {"path", "call", "name", "parent_oauth_scopes", "scope"}:
            return look(**asked)
        return keep(tuple(asked.pop("parent_oauth_scopes")), **asked)

    utils.get_dependant = look_once


def parse_once() -> None:
    """
    Have Airflow parse a folder of DAGs, and write them to its database, again only if a file has changed.

    ``dag.test()`` does so for the DAG's whole folder each time, which takes a second of processor.
    """
    from airflow.dag_processing import dagbag

    bag_of, write = dagbag.BundleDagBag, dagbag.sync_bag_to_db

    @cache
    def parse(folder: str, name: str, state: frozenset[tuple[str, int]]) -> Any:
        return bag_of(folder, bundle_path=Path(folder), bundle_name=name)

    def parse_if_changed(dag_folder: str | Path, *, bundle_path: Path, bundle_name: str) -> Any:
        files = [Path(top) / file for top, _, files in os.walk(dag_folder) for file in files if file.endswith(".py")]
        return parse(str(dag_folder), bundle_name, frozenset((str(each), each.stat().st_mtime_ns) for each in files))

    dagbag.BundleDagBag = parse_if_changed  # type: ignore[assignment,misc]  # a function in a class's place
    dagbag.sync_bag_to_db = cache(write)  # type: ignore[assignment]  # it takes whatever can be a key
