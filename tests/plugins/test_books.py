"""The page of an order book or a capture: what it shows, to whom, and what it refuses to read."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

from airflow_provider_quoine.datasets import timeline
from airflow_provider_quoine.operators.capture import folder_of
from airflow_provider_quoine.plugins import access, books, results
from airflow_provider_quoine.plugins.app import STATIC
from airflow_provider_quoine.plugins.plugin import QuoinePlugin
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.datasets.stored import STEM, edit_manifest, make, make_day, manifest
from tests.datasets.test_depth import BOOK
from tests.plugins.browser import PEOPLE, Person
from tests.support.airflow_version import RESULTS_OF_TASKS
from tests.support.one_task import OneTask

pytestmark = pytest.mark.usefixtures("airflow_database")

MARKUP = "</script><script>alert(1)</script>"


def returned(task: OneTask, value: Any, *, map_index: int = -1) -> str:
    """Have a task return something, and return the address of its page."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with task.instance() as instance:
        instance.map_index = map_index
        instance.state = "success"
    with create_session() as session:
        XComModel.set(
            key="return_value",
            value=value,
            dag_id=task.dag_id,
            task_id="task",
            run_id=task.run_id,
            map_index=map_index,
            serialize=False,
            session=session,
        )
    return address(task, map_index if map_index >= 0 else "{MAP_INDEX}")


def address(task: OneTask, map_index: object = "{MAP_INDEX}") -> str:
    """The page of a task, as Airflow's page asks for it."""
    return f"/book/{task.dag_id}/{quote(task.run_id, safe='')}/task/{quote(str(map_index))}"


def shown(where: str, person: str = "viewer") -> str:
    """What a page shows a person."""
    answer = Person(person).get(where, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    page: str = answer.text
    # The page's own protection would forbid these.
    assert re.findall(r'<script(?! src="[^"]+"(?: defer)?>)(?! type="application/json")|\sstyle=|\son\w+=', page) == []
    return page


def chart(page: str) -> dict[str, Any]:
    """What is drawn on a page."""
    (found,) = re.findall(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def cells(page: str) -> list[list[str]]:
    """The rows of the page's table."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", page)
    return [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def capture_of(task: OneTask, folder: Path, *, map_index: int = -1, file_format: str = "jsonl") -> tuple[Path, str]:
    """Store the capture of a task; return its folder and the path of its summary."""
    own = folder_of(dag_id=task.dag_id, run_id=task.run_id, task_id="task", map_index=map_index)
    make(folder / own, file_format)
    return folder / own, f"{folder / own}/{STEM}_*.{file_format}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: what is tested here is not that."""
    monkeypatch.setattr(timeline, "SECONDS", 60.0)


def test_a_book_that_a_task_took_is_drawn_exactly(exchange: SandboxControl) -> None:
    task = OneTask("book")
    assert task.step().state == "deferred"
    assert task.trigger().state == "success"
    page, book = shown(address(task)), task.xcom()
    for side in ("bids", "asks"):
        assert [price for price, _ in chart(page)[side]] == [price for price, _ in book[side]]
    assert chart(page)["mid"] == book["mid"]
    assert [[row[2], row[1]] for row in cells(page)] == book["bids"][: len(cells(page))]
    assert f"{book['best_bid']}, {book['best_ask']}" in page
    assert "Order book of btcjpy" in page


def test_the_ladder_is_bounded_and_says_so() -> None:
    levels = [[str(number), "1"] for number in range(600, 0, -1)]
    page = shown(returned(OneTask("book"), BOOK | {"bids": levels}))
    assert len(cells(page)) == books.LEVELS
    assert cells(page)[-1][:3] == ["100", "1", "501"]
    assert "The best 100 of 600 levels" in page
    assert len(chart(page)["bids"]) == 600


def test_a_book_in_doubt_says_so() -> None:
    page = shown(returned(OneTask("book"), BOOK | {"stale": True, "asks": [["600.5", "1"]]}))
    assert "This book is stale" in page
    assert "This book is crossed" in page
    assert '<span class="tag good">' not in page


def test_an_empty_book_can_be_shown() -> None:
    page = shown(returned(OneTask("book"), BOOK | {"bids": [], "asks": []}))
    assert (chart(page), cells(page)) == ({"bids": [], "asks": [], "mid": None}, [])
    assert "Bids: none." in page


def test_a_task_that_took_nothing_says_so() -> None:
    page = shown(returned(OneTask("ticker"), BOOK))
    assert "This task takes no order book and captures nothing: it is a <code>QuoineProductSnapshotOperator" in page


def test_a_task_without_a_result_says_its_state() -> None:
    task = OneTask("book")
    assert "It has no result: its state is none yet." in shown(address(task))
    with task.instance() as instance:
        instance.state = "deferred"
    assert "its state is deferred" in shown(address(task))


def test_a_task_that_is_not_there_is_not_found() -> None:
    for where in ("/book/book/nothing/task/-1", "/book/book/nothing/task/-1/manifest", f"{address(OneTask('book'))}0"):
        assert Person("admin").get(where).status_code == 404


def test_a_mapped_task_has_a_page_for_each_index() -> None:
    task = OneTask("book")
    where = returned(task, BOOK, map_index=3)
    assert where.endswith("/task/3")
    assert "Order book of btcjpy" in shown(where)
    assert Person("viewer").get(address(task, -1)).status_code == 404


@pytest.mark.parametrize(
    "value",
    [
        None,
        "a text",
        MARKUP,
        7,
        [],
        [BOOK],
        {},
        float("nan"),
        {"pair": MARKUP},
        BOOK | {"pair": MARKUP},
        BOOK | {"bids": [[MARKUP, "1"]]},
        BOOK | {"bids": [[float("nan"), float("inf")]]},
        BOOK | {"bids": [["1", "1"]] * 10_000},
        {"__classname__": "airflow.sdk.ObjectStoragePath", "__version__": 1, "__data__": "/etc/passwd"},
    ],
)
def test_any_other_result_is_refused_in_words(value: Any) -> None:
    page = shown(returned(OneTask("book"), value))
    assert "is no order book as its operator returns it" in page
    assert "chart-data" not in page
    assert MARKUP not in page


def test_a_result_that_is_too_long_is_not_read() -> None:
    assert "longer than 1,000,000 characters" in shown(returned(OneTask("book"), "x" * (results.MOST_CHARACTERS + 1)))


def test_a_result_that_is_too_deep_is_not_read() -> None:
    from airflow.utils.session import create_session
    from sqlalchemy import Text, column, table, update

    task = OneTask("book")
    where = returned(task, task.run_id)
    # Not through Airflow's model, which from 3.4 on only reads.
    xcoms = table(RESULTS_OF_TASKS, column("value", Text))
    deep = update(xcoms).where(xcoms.c.value == json.dumps(task.run_id)).values(value="[" * 500_000)
    with create_session() as session:
        session.execute(deep)
    assert "Its result cannot be read." in shown(where)


@pytest.mark.parametrize("file_format", ["jsonl", "jsonl.gz", "parquet"])
def test_a_capture_is_drawn_with_its_gaps(tmp_path: Path, file_format: str) -> None:
    task = OneTask("book_capture")
    folder, path = capture_of(task, tmp_path, file_format=file_format)
    page = shown(returned(task, {"path": path}))
    assert len(chart(page)["at"]) == 290
    assert cells(page) == [["2026-01-02 12:02:20 UTC", "2026-01-02 12:02:30 UTC", "10.000", "cut"]]
    assert "96.3333 %" in page
    assert "289 of 289 rows are drawn, of 5 of 5 files with rows" in page
    assert "The mid price began at 600.75" in page
    assert f"airflow quoine captures verify '{folder}/{STEM}_*'" in html.unescape(page)


@pytest.mark.long
def test_of_a_day_some_rows_are_drawn(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    own = folder_of(dag_id=task.dag_id, run_id=task.run_id, task_id="task", map_index=-1)
    make_day(tmp_path / own, "jsonl.gz")
    answer = shown(returned(task, {"path": f"{tmp_path / own}/{STEM}_*.jsonl.gz"}))
    assert "480 of 86,400 rows are drawn, of 120 of 288 files with rows" in answer
    assert len(answer) < 100_000


def test_the_manifest_is_a_link_away(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    folder, path = capture_of(task, tmp_path)
    page = shown(returned(task, {"path": path}))
    (link,) = re.findall(r'href="[^"]*/quoine(/book/[^"]+/manifest)"', page)
    answer = Person("viewer").get(html.unescape(link))
    assert (answer.content, answer.headers["content-type"]) == (manifest(folder).read_bytes(), "application/json")


def test_the_command_on_the_page_does_nothing_else(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    _, path = capture_of(task, tmp_path / "x'; reboot; '")
    (command,) = re.findall("airflow quoine captures verify ([^<]+)<", shown(returned(task, {"path": path})))
    assert shlex.split(html.unescape(command)) == [path.removesuffix(".jsonl")]


def test_a_mapped_capture_is_that_of_its_index(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    _, path = capture_of(task, tmp_path, map_index=2)
    assert "Capture of btcjpy" in shown(returned(task, {"path": path}, map_index=2))
    other = OneTask("book_capture")
    _, path = capture_of(other, tmp_path, map_index=2)
    assert "no file was read" in shown(returned(other, {"path": path}, map_index=20))


def test_a_capture_of_executions_has_its_gaps_and_no_chart(tmp_path: Path) -> None:
    task = OneTask("executions_capture")
    folder, path = capture_of(task, tmp_path)
    edit_manifest(folder, capture=json.loads(manifest(folder).read_text())["capture"] | {"stream": "execution"})
    page = shown(returned(task, {"path": path}))
    assert "Mid and spread" not in page
    assert len(cells(page)) == 1


def test_what_a_manifest_says_is_text(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    folder, path = capture_of(task, tmp_path)
    content = json.loads(manifest(folder).read_text())
    content["parts"][2]["gaps"][0]["reason"] = MARKUP
    told = dict.fromkeys(content["capture"], MARKUP) | {"stream": "order_book"}
    edit_manifest(folder, parts=content["parts"], capture=told)
    page = shown(returned(task, {"path": path}))
    assert MARKUP not in page
    assert cells(page)[0][3] == MARKUP


def test_a_capture_whose_files_are_elsewhere_says_so(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    folder, path = capture_of(task, tmp_path)
    where = returned(task, {"path": path})
    manifest(folder).unlink()
    assert "Captures are shown where it can read the files" in html.unescape(shown(where))
    answer = Person("viewer").get(f"{where}/manifest")
    assert (answer.status_code, "FileNotFoundError" in answer.text) == (404, True)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{other}",
        "{root}/../{own}/{stem}_*.jsonl",
        "{root}/{own}/../../../../{other}",
        "{root}/{own}/{stem}_*.jsonl/../../x_20260102T120000Z_*.jsonl",
        "{own}/{stem}_*.jsonl",
        "./{own}/{stem}_*.jsonl",
        "http://169.254.169.254/{own}/{stem}_*.jsonl",
        "simplecache::file://{root}/{own}/{stem}_*.jsonl",
        "nowhere://{root}/{own}/{stem}_*.jsonl",
        "{root}/{own}/*_*.jsonl",
        "{root}/{own}/\0{stem}_*.jsonl",
        "{root}/{own}/{stem}.jsonl",
        "{root}x{own}/{stem}_*.jsonl",
        "/" + "x" * 3000 + "/{own}/{stem}_*.jsonl",
        7,
        None,
        ["{root}/{own}/{stem}_*.jsonl"],
    ],
)
def test_a_path_to_somewhere_else_is_not_read(tmp_path: Path, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, other = OneTask("book_capture"), OneTask("book_capture")
    _, theirs = capture_of(other, tmp_path)
    capture_of(task, tmp_path)
    own = folder_of(dag_id=task.dag_id, run_id=task.run_id, task_id="task", map_index=-1)
    if isinstance(path, str):
        path = path.format(other=theirs, root=tmp_path, own=own, stem=STEM)
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", None)
    where = returned(task, {"path": path})
    page = shown(where)
    assert re.search("no file was read|knows no store|No filesystem|cannot read", page), page
    assert "Files" not in page
    assert Person("admin").get(f"{where}/manifest").status_code == 404


@pytest.mark.parametrize("dag_id", ["ticker", "book"])
def test_a_path_that_another_operator_returns_is_not_read(tmp_path: Path, dag_id: str) -> None:
    task = OneTask(dag_id)
    _, path = capture_of(task, tmp_path)
    where = returned(task, {"path": path})
    assert "No order book" in shown(where)
    answer = Person("admin").get(f"{where}/manifest")
    assert (answer.status_code, answer.json()["detail"]) == (404, "This task has captured nothing.")


def test_the_address_names_no_path(tmp_path: Path) -> None:
    task = OneTask("book_capture")
    _, path = capture_of(task, tmp_path)
    for query in (f"?path={quote(path)}", f"?folder={quote(str(tmp_path))}"):
        assert "It has no result" in shown(f"{address(task)}{query}")


def test_the_operator_writes_where_the_page_looks(tmp_path: Path, exchange: SandboxControl) -> None:
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    task = OneTask("book_capture", path=str(tmp_path))
    assert task.step().state == "deferred"
    with create_session() as session, task.instance() as instance:
        folder = session.get_one(Trigger, instance.trigger_id).kwargs["spec"]["folder"]
    own = folder_of(dag_id=task.dag_id, run_id=task.run_id, task_id="task", map_index=-1)
    assert folder == f"{tmp_path}/{own}"


@pytest.mark.parametrize("person", PEOPLE)
def test_who_may_see_a_dags_results_sees_the_book(person: str) -> None:
    assert "Order book of btcjpy" in shown(returned(OneTask("book"), BOOK), person)


def test_who_may_not_see_a_dags_results_sees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OfAnotherTeam:
        @staticmethod
        def is_authorized_dag(*, method: str, access_entity: Any, details: Any, user: Any) -> bool:
            return not (method == "GET" and access_entity == DagAccessEntity.XCOM and details.id != "ticker")

    task = OneTask("book_capture")
    _, path = capture_of(task, tmp_path)
    pages = [returned(OneTask("book"), BOOK), returned(task, {"path": path}), f"{address(task)}/manifest"]
    monkeypatch.setattr(access, "get_auth_manager", OfAnotherTeam)
    for where in pages:
        assert Person("admin").get(where).status_code == 403
    assert "takes no order book" in shown(address(OneTask("ticker")))


def test_airflow_shows_the_page_on_a_task() -> None:
    (view,) = (view for view in QuoinePlugin.external_views if view["destination"] == "task_instance")
    task = OneTask("book")
    returned(task, BOOK)
    href = view["href"].replace("{DAG_ID}", "book").replace("{RUN_ID}", quote(task.run_id, safe=""))
    assert "Order book of btcjpy" in shown(href.replace("{TASK_ID}", "task").removeprefix("quoine"))


def test_what_is_not_ours_is_as_its_makers_published_it() -> None:
    told = dict(re.findall(r"`(uPlot\S+)` \| `([0-9a-f]{64})`", (STATIC / "README.md").read_text()))
    assert {path.name for path in STATIC.glob("uPlot*")} == {*told}
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in told} == told
