"""The README's ten lines and the quickstart run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.rst").read_text(encoding="utf-8")

#: Reads a DAG file as Airflow does, and tells its DAGs and their tasks.
READER = """
import sys
from airflow.dag_processing.dagbag import BundleDagBag

bag = BundleDagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="snippets")
assert not bag.import_errors, bag.import_errors
for dag in bag.dags.values():
    print(dag.dag_id, *(task.task_id for task in dag.topological_sort()))
"""


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in Markdown or reStructuredText, files that it includes among them."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = [block for named, block in fences if named == language]
    directive = re.compile(rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)")
    found += [textwrap.dedent(block) for block in directive.findall(text)]
    included = re.findall(r"\.\. literalinclude:: (\S+)\n((?:   :.*\n)*)", text)
    for name, options in included:
        if language and f":language: {language}" in options:
            assert "start-" not in options, f"only a part of {name} is shown, which does not run alone"
            found.append((ROOT / "docs" / name).read_text(encoding="utf-8"))
    return found


def read_dag(source: str, folder: Path) -> str:
    """Have Airflow read a DAG file in a fresh Python; return the DAG and its tasks."""
    (folder / "dags").mkdir(exist_ok=True)
    (folder / "dags" / "snippet.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder / "dags")],
        env=os.environ | {"AIRFLOW_HOME": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.airflow
def test_the_ten_lines_of_the_readme_are_a_dag(tmp_path: Path) -> None:
    (source,) = blocks(README, "python")
    assert read_dag(source, tmp_path) == "onboard_and_withdraw create wait withdraw"
    assert len(source.partition("\n\n")[2].splitlines()) == 10


@pytest.mark.airflow
def test_the_dags_of_the_quickstart_run(tmp_path: Path) -> None:
    assert [read_dag(source, tmp_path).split()[0] for source in blocks(QUICKSTART, "python")] == [
        "buyers_at_nine",
        "quoine_onboard_and_withdraw",
    ]


def commands() -> Iterator[str]:
    """Every line of shell that README and quickstart tell people to type."""
    for block in blocks(QUICKSTART, "console"):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
    for block in blocks(README, ""):
        yield from (line.partition("#")[0].strip() for line in block.splitlines())


@pytest.mark.parametrize("command", sorted(set(commands())))
@pytest.mark.airflow
def test_a_line_of_shell_works(command: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    match program:
        case "make":
            subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=60)
        case "pip":
            metadata = ConfigParser()
            metadata.read(ROOT / "setup.cfg")
            assert arguments == ["install", metadata["metadata"]["name"]]
        case "python" | "airflow":
            module = [] if program == "python" else ["-m", program]
            done = subprocess.run(
                [sys.executable, *module, *arguments],
                env=os.environ | {"AIRFLOW_HOME": str(tmp_path)},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=120,
            )
            if program == "python":
                examples = Path(done.stdout.splitlines()[-1])
                assert {path.name for path in (ROOT / "dags").glob("*.py")} <= {
                    path.name for path in examples.iterdir()
                }
        case _:
            pytest.fail(f"nobody checks {program}")
