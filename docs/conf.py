"""How Sphinx makes the documentation."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

# Reading docstrings imports Airflow, which writes its settings into its home.
home = tempfile.TemporaryDirectory(prefix="airflow-docs-")
os.environ["AIRFLOW_HOME"] = home.name
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from airflow_provider_quoine import __version__
from airflow_provider_quoine.hooks.connection import ConnectionExtras

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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


def write_extra_fields(app: Sphinx, document: str, source: list[str]) -> None:
    """Put the connection's fields where a page asks for them, from the one place that describes them."""
    fields = [
        f"``{name}`` — *{field.title}*{'' if field.default in (None, '') else f', ``{field.default}`` by default'}\n"
        f"   {field.description}"
        for name, field in ConnectionExtras.model_fields.items()
    ]
    source[0] = source[0].replace(".. extra-fields::", "\n\n".join(fields))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", write_extra_fields)
