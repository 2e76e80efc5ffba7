"""Where Airflow's configuration has applications kept, and for how long."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import conf

from airflow_provider_quoine.applications.store import ApplicationStore
from airflow_provider_quoine.hooks.configuration import SECTION, airflow_home, executors_on_other_hosts

KEPT_DAYS = 7.0
"""Of an application, by default (decisions, Onboarding)."""


def open_store() -> ApplicationStore:
    """
    Open the place of the applications, and remove what has expired there.

    :raises QuoineInputError: if it cannot be reached from here.
    :raises QuoineApplicationsError: if the store refuses.
    """
    path = conf.get(SECTION, "applications_path", fallback="")
    unusable = ""
    if not path and (executors := executors_on_other_hosts()):
        unusable = (
            f"Applications would be kept in a folder of this host, and the executor ({', '.join(executors)}) may run "
            f"tasks on others. Nothing was stored. Name a place that all reach in [{SECTION}] applications_path."
        )
    local = path.removeprefix("file://").removeprefix("local://")
    if path and "://" not in local and not os.path.isabs(local):
        unusable = (
            f"[{SECTION}] applications_path is {path!r}, which each process would look for in a folder of its own. "
            "Nothing was stored. Give a path that begins with /, or a URI."
        )
    kept_for = timedelta(days=max(0.0, conf.getfloat(SECTION, "applications_days", fallback=KEPT_DAYS)))
    store = ApplicationStore(
        path or str(airflow_home() / "quoine" / "applications"), kept_for=kept_for, unusable=unusable
    )
    store.expire()
    return store
