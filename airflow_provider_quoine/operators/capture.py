"""Operators that capture the market streams into files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import BaseOperator

from airflow_provider_quoine.assets import CAPTURES, add_event, may_add_events
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.failures import in_words, stop, without_retry
from airflow_provider_quoine.formats.kinds import StreamKind
from airflow_provider_quoine.triggers.capture import QuoineCaptureTrigger
from airflow_provider_quoine.triggers.events import Status, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "quoine_capture"
"""Key in the task state store under which a capture that has not succeeded yet keeps when it began."""

TOLD = ("path", "rows", "gap_seconds", "completeness", "from", "until")
"""What the asset event of a capture has of its summary."""

PAST = (
    "The time of this capture, {0.duration} s from {0.began_at} on, is over, and no file was written in it. "
    "The stream has no past, so it cannot be captured any more."
)

LONGEST_NAME = 80
"""Characters of a run's or task's id that a path carries."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.=-]+")


def folder_of(*, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """
    Return the folder of a task's files below its ``path``.

    :param map_index: -1 for a task that is not mapped.
    """
    return "/".join([*map(path_name, (dag_id, run_id, task_id)), *([str(map_index)] if map_index >= 0 else [])])


class CaptureOperator(BaseOperator):
    """
    Base of the capture operators: a folder of its own for each task, and a retry that continues the same capture.

    Its arguments are described at :class:`QuoineCaptureOrderBookOperator`.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "path", "duration", "part_seconds", "file_format", "began_at")
    ui_color = "#dcfce7"
    stream: StreamKind
    numbers: Sequence[str] = ("duration", "part_seconds")
    """Numbers among the arguments of the specification, which a template may write."""
    own: Sequence[str] = ("pair",)
    """The other arguments of the specification that are this stream's."""

    def __init__(
        self,
        *,
        path: str,
        duration: float | str | None,
        part_seconds: float | str = 60,
        file_format: str = "jsonl",
        began_at: str | None = None,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.began_at = began_at
        self.duration = duration
        self.part_seconds = part_seconds
        self.file_format = file_format
        self.quoine_conn_id = quoine_conn_id
        may_add_events(self, CAPTURES)

    def execute(self, context: Context) -> None:
        """
        Check the input and defer to the triggerer.

        :raises AirflowFailException: on wrong input, which no retry can correct.
        """
        store: Any = context["task_state_store"]
        began_at = self.began_at or pendulum.now("UTC").start_of("second").isoformat()
        state: dict[str, str] = store.get(STATE_KEY) or {"began_at": began_at}
        with without_retry():
            spec = CaptureSpec.of(
                stream=self.stream,
                folder=self._folder(context["ti"]),
                file_format=self.file_format,
                began_at=state["began_at"],
                **{name: getattr(self, name) for name in self.own},
                **{name: _number(getattr(self, name)) for name in self.numbers},
            )
        store.set(STATE_KEY, state)
        trigger = QuoineCaptureTrigger(quoine_conn_id=self.quoine_conn_id, spec=spec.as_json())
        self.defer(trigger=trigger, method_name="execute_complete")

    def _folder(self, ti: Any) -> str:
        own = folder_of(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
        return f"{self.path.rstrip('/')}/{own}"

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the summary.

        :param event: the trigger's event.
        :raises AirflowFailException: on wrong input, which no retry can correct.
        :raises AirflowException: if the capture failed; a retry goes on where its files end.
        """
        with in_words():
            outcome = read_event(event, sender="The capture's trigger")
        if outcome.status in (Status.SUCCESS, Status.EMPTY):
            # This task, if it is tried or cleared from now on, is a new capture.
            context["task_state_store"].delete(STATE_KEY)
        if outcome.status is Status.REFUSED:
            raise stop(
                "The input or a setting is wrong.",
                done="Nothing was captured.",
                next="Correct what is named below, then clear this task.",
                details=outcome.message,
            )
        if outcome.status is Status.EMPTY and self.began_at:
            # The same time is over at the next try, too.
            raise stop(
                "The time of this capture is over, and it has no file.",
                done="Nothing was captured. The stream has no past.",
                next="Delete this run, or keep it to show what is missing.",
                details=outcome.message if outcome.result else PAST.format(self),
            )
        with in_words():
            summary = outcome.success()
        told = {name: str(summary[name]) for name in TOLD}
        add_event(context, CAPTURES, f"capture/{summary['path']}", stream=str(self.stream), **told)
        return summary


class SnapshotCaptureOperator(CaptureOperator):
    """Base of the captures by time. Its arguments are described at :class:`QuoineCaptureOrderBookOperator`."""

    template_fields = (*CaptureOperator.template_fields, "pair", "interval", "count")
    numbers = (*CaptureOperator.numbers, "interval", "count")

    def __init__(
        self,
        *,
        pair: str,
        interval: float | str | None = None,
        count: int | str | None = None,
        duration: float | str | None = None,
        on_doubt: str = "mark",
        **kwargs: Any,
    ) -> None:
        super().__init__(duration=duration, **kwargs)
        self.pair = pair
        self.interval = interval
        self.count = count
        self.on_doubt = on_doubt


class QuoineCaptureOrderBookOperator(SnapshotCaptureOperator):
    """
    Capture the order book of a pair by time: a row every ``interval``, in quiet markets too (api-reference II).

    Waits in the triggerer and holds no worker slot. Of ``interval``, ``count`` and ``duration`` give two.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    :param path: folder under which each run and task gets its own: an absolute local path or any URI that
        Airflow's ``ObjectStoragePath`` knows, such as ``s3://connection@bucket/captures``. The triggerer writes there;
        where several hosts run triggerers, all of them must share it.
    :param interval: seconds between two rows.
    :param count: number of rows.
    :param duration: seconds.
    :param depth: rows to keep of each side, best first; all by default (the exchange sends at most 40).
    :param on_doubt: how a book is treated that is stale or crossed: ``mark`` (it says so), ``skip``, ``fail``.
    :param part_seconds: of one file. It is in memory until it is written, early if it is large.
    :param file_format: ``jsonl``, ``jsonl.gz`` or ``parquet``.
    :param began_at: the moment from which the time counts, ISO 8601 with an offset; by default when the task first
        starts. What was over before that start is a gap, and a time that is over as a whole fails without a retry.
    :param quoine_conn_id: connection that names the stream.
    :return: ``path`` (a pattern of the files), ``files``, ``rows``, ``gaps``, ``gap_seconds``, ``completeness``,
        ``reconnects``, ``dropped``, ``skipped``, ``from``, ``until``.
    """

    stream = StreamKind.ORDER_BOOK
    own = ("pair", "on_doubt", "depth")

    def __init__(self, *, depth: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth


class QuoineCaptureProductOperator(SnapshotCaptureOperator):
    """
    Capture the ticker of a product by time: a row every ``interval``, in quiet markets too (api-reference II).

    Its other arguments and its result are those of :class:`QuoineCaptureOrderBookOperator`.

    :param product_id: the exchange's number of the pair's product; may be left out where it is on record.
    """

    stream = StreamKind.PRODUCT
    own = ("pair", "on_doubt", "product_id")

    def __init__(self, *, product_id: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.product_id = product_id


class QuoineCaptureExecutionsOperator(CaptureOperator):
    """
    Capture the executions of a pair, every one (api-reference II).

    Its arguments are ``pair``, ``duration`` and those of :class:`QuoineCaptureOrderBookOperator` that say where to and
    how, and its result is the same; ``dropped`` counts those that came faster than they could be taken.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    """

    template_fields = (*CaptureOperator.template_fields, "pair")
    stream = StreamKind.EXECUTION

    def __init__(self, *, pair: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pair = pair


class QuoineCaptureEventsOperator(CaptureOperator):
    """
    Capture every event of some channels as it came, which the sandbox can replay.

    Its arguments are ``channels``, ``duration`` and those of :class:`QuoineCaptureOrderBookOperator` that say where to
    and how, and its result is the same; ``dropped`` counts events that came faster than they could be taken.

    :param channels: names of channels, such as ``price_ladders_cash_btcjpy_buy``.
    """

    template_fields = (*CaptureOperator.template_fields, "channels")
    stream = StreamKind.EVENT
    own = ("channels",)

    def __init__(self, *, channels: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels


def path_name(text: str) -> str:
    """Return an id as the name of a folder: what is not safe there is replaced, and then a checksum tells ids apart."""
    safe = _UNSAFE.sub("_", text)[:LONGEST_NAME]
    if safe == text and safe.strip("."):
        return safe
    return f"{safe.lstrip('.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _number(given: Any) -> Any:
    """Read a number that a template wrote; anything else is checked as it is."""
    if not isinstance(given, str):
        return given
    try:
        return int(given) if given.isdecimal() else float(given)
    except ValueError:
        return given
