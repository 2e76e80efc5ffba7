"""How Sphinx makes the documentation."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Reading docstrings imports Airflow, which writes its settings into its home.
home = tempfile.TemporaryDirectory(prefix="airflow-docs-")
os.environ["AIRFLOW_HOME"] = home.name
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from airflow_provider_quoine import __version__

project = "airflow-provider-quoine"
version = release = __version__
copyright = "the airflow-provider-quoine authors"
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {__version__}"
exclude_patterns = ["_build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
# Airflow's, requests' and Python's own names: their documentation is elsewhere.
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|requests|collections|pathlib|decimal|datetime)\..*"),
    ("py:exc", r"[A-Z]\w+"),
]
