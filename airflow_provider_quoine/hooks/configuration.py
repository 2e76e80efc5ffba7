"""This provider's section of Airflow's configuration."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import conf

#: Section of Airflow's configuration.
SECTION = "quoine"

_ONE_HOST = frozenset({"LocalExecutor", "SequentialExecutor"})


def airflow_home() -> Path:
    """Return the folder that Airflow calls its home, as Airflow itself finds it."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser()


def executors_on_other_hosts() -> list[str]:
    """Return the executors that may run tasks on other hosts than the scheduler's, which share no file with it."""
    named = {name.strip().rpartition(".")[2].rpartition(":")[2] for name in conf.get("core", "executor").split(",")}
    return sorted(named - _ONE_HOST)
