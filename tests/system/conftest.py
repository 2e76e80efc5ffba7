"""A real Airflow beside the sandbox exchange, on which the example DAGs have been played to their end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.standalone import Standalone
from tools.story import SETTINGS, Story, runs_of

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Played:
    """
    What is there after the play, still running.

    :param folder: everything that Airflow and the sandbox wrote
    """

    airflow: Standalone
    sandbox: SandboxProcess
    story: Story
    folder: Path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Play all example DAGs once; the Airflow is gone when the module is, so that it slows no other test."""
    folder = tmp_path_factory.mktemp("played")
    documents = write_documents(tmp_path_factory.mktemp("documents"))
    # A code of five digits would be found by chance in any log; the person's code is as short as it likes.
    options = ["--code-digits", "12", "--verbose"]
    with (
        SandboxProcess(folder=folder, options=options) as sandbox,
        Standalone(home=folder / "airflow", dags=ROOT / "dags", settings=SETTINGS) as airflow,
    ):
        airflow.api.create_connection("quoine_default", sandbox.connection)
        story = Story(airflow=airflow, sandbox=sandbox.control, runs=runs_of(documents))
        story.play(lambda: None)
        yield Played(airflow=airflow, sandbox=sandbox, story=story, folder=folder)
        processes = airflow.processes()
    assert [process for process in processes if process.is_running()] == []
