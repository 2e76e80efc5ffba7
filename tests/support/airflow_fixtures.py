"""A real Airflow database and the DAG folders, for tests that run whole DAGs."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.airflow_once import (
    leave_out_middlewares,
    look_at_dependencies_once,
    make_newest_version_only,
    parse_once,
)
from tests.support.heap import kept

REPOSITORY = Path(__file__).parents[2]
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
FOLDERS = {
    "examples": REPOSITORY / "dags",
    "tests": Path(__file__).parent / "dags",
    # Where Airflow's users save their DAGs; empty but for what a test saves there.
    "home": Path(os.environ["AIRFLOW_HOME"]) / "dags",
}


_ADDRESSES: set[str] = set()
"""Of the sandboxes of this process's tests."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that run tasks on Airflow in this process."""
    if "airflow_database" in getattr(item, "fixturenames", ()):
        item.add_marker("airflow")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """
    Have Airflow forget the secrets that it masks in this process's logs.

    It compiles one pattern of all of them, again for each new one, and a test has a dozen: a third of the tests' time.
    """
    if masker := sys.modules.get("airflow.sdk._shared.secrets_masker"):
        masker.reset_secrets_masker()


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Give this process a database of Airflow's. Airflow reads its settings from the environment."""
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for name, path in FOLDERS.items()
    ]
    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "True"
    os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    # Airflow's own default is too short for PyJWT, which warns of it.
    os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_hex(32)
    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(bundles)
    home = Path(os.environ["AIRFLOW_HOME"])
    if worker_id == "master":
        make_database(home)
    else:
        # The processes of pytest-xdist share one folder above their own.
        copy_database(home, tmp_path_factory.getbasetemp().parent / "airflow")
    with kept():
        from airflow.sdk.execution_time.supervisor import in_process_api_server

        make_newest_version_only()
        # What tasks in this process ask; it is made on first use.
        leave_out_middlewares(in_process_api_server().app)
    look_at_dependencies_once()
    parse_once()


def copy_database(home: Path, shared: Path) -> None:
    """Copy Airflow's database into its home; the first process that asks makes it."""
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "airflow.db").exists():
            make_database(home)
            shutil.copy(home / "airflow.db", shared / "made.db")
            (shared / "made.db").rename(shared / "airflow.db")
    shutil.copy(shared / "airflow.db", home)


def make_database(home: Path) -> None:
    """Make Airflow's database in its home, which takes some seconds."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, capture_output=True, timeout=180, env=os.environ | {"AIRFLOW_HOME": str(home)})


@pytest.fixture
def airflow_log(airflow_database: None) -> Iterator[io.StringIO]:
    """All that Airflow logs during a test, masked as far as Airflow masks it."""
    import structlog
    from airflow._shared.logging.structlog import LoggerFactory, NamedWriteLogger

    text = io.StringIO()
    ours = structlog.get_config()["logger_factory"]
    structlog.configure(logger_factory=LoggerFactory(NamedWriteLogger, io=text))
    (handler,) = (one for one in logging.getLogger().handlers if one.name == "default")
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(text)
    yield text
    structlog.configure(logger_factory=ours)
    handler.setStream(before)


@pytest.fixture
def exchange(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxControl]:
    """
    Run a sandbox that ``quoine_default`` connects to, at an address that none had before.

    The ledger is that of all tests of this process. A sandbox at the address of an earlier one, whose port the system
    gives again, would be the same exchange, and would give the same ids again.
    """
    with ExitStack() as stack:
        while True:
            settings = SandboxSettings(pace=0.01, market_rate=20, code_digits=12)
            sandbox = stack.enter_context(SandboxServer(settings))
            if sandbox.url not in _ADDRESSES:
                break
        _ADDRESSES.add(sandbox.url)
        connection = json.loads(sandbox.airflow_connection())
        connection["extra"]["withdrawal_addresses"] = "*"
        monkeypatch.setenv("AIRFLOW_CONN_QUOINE_DEFAULT", json.dumps(connection))
        yield sandbox.control


@pytest.fixture
def payer(exchange: SandboxControl, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Onboard a user, whose key is in the Variable ``user_key``; return the id."""
    from airflow_provider_quoine.exchange.models import Document, OnboardingUser
    from airflow_provider_quoine.hooks.quoine import QuoineHook

    person = OnboardingUser(first_name="Ta", last_name="Yama", phone="09017901357", email="t@example.com", country="JP")
    document, password = Document(name="document.pdf", content=b"%PDF-"), "Passw0rd-of-the-test"
    with QuoineHook().get_conn() as client:
        user_id = client.create_onboarding_user(
            user=person, password=password, id_document=document, proof_address=document, bank_statement=document
        )
        exchange.approve(user_id)
        key = client.get_onboarding_status(user_id=user_id, password=password).credentials
    assert key is not None
    monkeypatch.setenv("AIRFLOW_VAR_USER_KEY", key.to_json())
    yield user_id
    forget_questions()


def forget_questions() -> None:
    """Leave no question open that the person of another test would be asked."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    with create_session() as session:
        waiting = session.query(TaskInstance).filter_by(state=TaskInstanceState.AWAITING_INPUT)
        waiting.update({"state": TaskInstanceState.FAILED})


def parse(name: str) -> dict[str, Any]:
    """Parse the DAGs of a folder, by their ids."""
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(str(FOLDERS[name]), bundle_path=FOLDERS[name], bundle_name=name)
    assert not bag.import_errors
    return dict(bag.dags)


@pytest.fixture
def run_dag(airflow_database: None) -> Callable[..., tuple[str, dict[str, str], dict[str, Any]]]:
    """Run one DAG in this process with ``dag.test()``: the run's state, its tasks' states, and their results."""

    def run(dag_id: str, conf: dict[str, Any]) -> tuple[str, dict[str, str], dict[str, Any]]:
        for name in FOLDERS:
            dags = parse(name)
            if dag_id in dags:
                done = dags[dag_id].test(run_conf=conf)
                instances = done.get_task_instances()
                results = {one.task_id: one.xcom_pull(task_ids=one.task_id) for one in instances}
                return str(done.state), {one.task_id: str(one.state) for one in instances}, results
        raise LookupError(f"There is no DAG {dag_id}")

    return run


def stored_variable(name: str) -> str:
    """Read a Variable from Airflow's database, as the API server does."""
    from airflow.models import Variable

    return str(Variable.get(name))  # noqa: AIR311 - the SDK asks a supervisor, and there is none here


@pytest.fixture
def new_code(exchange: SandboxControl, payer: str) -> Iterator[Callable[[], None]]:
    """Put a fresh code into the Variable ``user_code``, so that only the ledger keeps a task from sending."""
    from airflow.models.variable import Variable

    from airflow_provider_quoine.hooks.quoine import QuoineHook

    def put() -> None:
        with QuoineHook(credentials_variable="user_key").get_conn() as client:
            client.request_auth_code(user_id=payer)
        Variable.set("user_code", exchange.latest_code(payer))

    put()
    yield put
    Variable.delete("user_code")
