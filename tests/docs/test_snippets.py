"""The README's ten lines and the quickstart run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.airflow_fixtures import FOLDERS
from tests.support.person import person

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.rst").read_text(encoding="utf-8")

#: Commands that are checked one by one; all others are typed one after another, in one shell.
PROGRAMS = {"make", "pip", "python", "airflow"}
RunDag = Callable[..., tuple[str, dict[str, str], dict[str, Any]]]


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


@pytest.fixture
def dag_file(airflow_database: None) -> Iterator[Path]:
    """A file in this process' DAGs folder, where a person would save a snippet."""
    path = FOLDERS["home"] / "snippet.py"
    path.parent.mkdir(exist_ok=True)
    yield path
    path.unlink()


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Type the quickstart's commands that come before Airflow's start; give the environment that they leave."""
    typed = [line for line in commands() if line.split()[0] not in PROGRAMS]
    assert "quoine-sandbox" in " ".join(typed)
    script = "\n".join([*typed, "env --null", "exec >&-", "wait"])
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        env=os.environ | {"PATH": search},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            assert shell.stdout is not None
            yield dict(variable.split("=", 1) for variable in shell.stdout.read().split("\0") if variable)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)


def test_the_ten_lines_of_the_readme_pay_an_onboarded_user(
    trial: dict[str, str],
    dag_file: Path,
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (source,) = blocks(README, "python")
    assert len(source.partition("\n\n")[2].splitlines()) == 10
    dag_file.write_text(source, encoding="utf-8")
    connection = trial["AIRFLOW_CONN_QUOINE_DEFAULT"]
    monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", connection)
    sandbox = SandboxControl(json.loads(connection)["host"])
    sandbox.set_pace(0.01)
    (address,) = re.findall("``(bc1[a-z0-9]+)``", QUICKSTART)
    form = {
        "first_name": "Taro",
        "last_name": "Yamada",
        "email_address": "taro@example.com",
        "phone": "+819017901357",
        "country": "JP",
        "id_document": str(tmp_path / "passport.pdf"),
        "proof_address": str(tmp_path / "bill.pdf"),
        "bank_statement": str(tmp_path / "statement.pdf"),
        "payment_reference": "invoice-117",
        "amount": "0.5",
        "pay_to": address,
    }
    with person(lambda question: ("Send", {"one_time_token": sandbox.auth_codes()[-1]["code"]})):
        state, tasks, results = run_dag("onboard_and_withdraw", form)
    assert (state, tasks) == ("success", dict.fromkeys(("create", "wait", "withdraw"), "success"))
    (paid,) = sandbox.state()["withdrawals"]
    assert (paid["amount"], paid["address"], paid["state"]) == ("0.5", address, "processed")
    assert results["withdraw"]["state"] == "processed"


def test_the_dag_of_the_quickstart_returns_the_book_once_buyers_come(
    exchange: SandboxControl, dag_file: Path, run_dag: RunDag
) -> None:
    waits, chain = blocks(QUICKSTART, "python")
    # The chain is run with the other examples.
    assert chain == (FOLDERS["examples"] / "quoine_onboard_and_withdraw.py").read_text(encoding="utf-8")
    dag_file.write_text(waits, encoding="utf-8")
    exchange.set_market_rate(0)
    over = Event()

    def buy() -> None:
        while not over.wait(0.2):
            exchange.publish("price_ladders_cash_btcjpy_buy", "updated", [["10000000.0", "1"]])
            exchange.publish("price_ladders_cash_btcjpy_sell", "updated", [["10000001.0", "1"]])

    buyers = Thread(target=buy)
    buyers.start()
    try:
        state, _, results = run_dag("buyers_at_nine", {})
    finally:
        over.set()
        buyers.join()
    assert state == "success"
    assert results["snapshot"]["bids"] == [["10000000", "1"]]


def commands() -> Iterator[str]:
    """Every line of shell that README and quickstart tell people to type."""
    for block in blocks(QUICKSTART, "console"):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
    for block in blocks(README, ""):
        yield from (line.partition("#")[0].strip() for line in block.splitlines())


@pytest.mark.parametrize("command", sorted({line for line in commands() if line.split()[0] in PROGRAMS}))
@pytest.mark.airflow
def test_a_line_of_shell_works(command: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    match program:
        case "make":
            subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=60)
        case "pip":
            metadata = ConfigParser()
            metadata.read(ROOT / "setup.cfg")
            extras = [f"[{name}]" for name in metadata["options.extras_require"]]
            install, named = arguments
            assert install == "install"
            assert named in {metadata["metadata"]["name"] + extra for extra in ("", *extras)}
        case "airflow" if arguments == ["standalone"]:
            # tests/system starts its Airflow so.
            assert '["airflow", "standalone"]' in (ROOT / "tools" / "standalone.py").read_text(encoding="utf-8")
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
