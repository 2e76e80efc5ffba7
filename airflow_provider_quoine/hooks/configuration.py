"""This provider's section of Airflow's configuration."""

from __future__ import annotations

import os
from pathlib import Path

#: Section of Airflow's configuration.
SECTION = "quoine"


def airflow_home() -> Path:
    """Return the folder that Airflow calls its home, as Airflow itself finds it."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser()
