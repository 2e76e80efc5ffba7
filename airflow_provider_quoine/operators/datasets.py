"""Operators that read what captures wrote: one verifies it, one draws it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_quoine.failures import WIDTH, stop, without_retry
from airflow_provider_quoine.links.captures import QuoineCaptureReportLink

if TYPE_CHECKING:
    from airflow.sdk import Context


class QuoineVerifyCaptureOperator(BaseOperator):
    """
    Verify captures, and fail if a part is missing, changed or doubled, a row out of order, or a gap not stated.

    The table in the task's log names each. The worker reads the files, one row at a time.

    :param path: a folder with captures in or below it, or the ``path`` of a capture's summary; a local path or any URI
        that Airflow's ``ObjectStoragePath`` knows.
    :return: ``captures``, ``parts``, ``rows``, ``gap_seconds``, ``completeness`` (of the least complete one) and
        ``faults``, which is 0.
    """

    template_fields: Sequence[str] = ("path",)
    ui_color = "#dcfce7"

    def __init__(self, *, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Context) -> dict[str, int | float]:
        """
        Verify.

        :raises AirflowFailException: if something is wrong, or there is no capture.
        :raises OSError: if the store does not answer; a retry may help.
        """
        from airflow_provider_quoine.datasets.verification import verify

        with without_retry():
            done = verify(self.path)
        for line in done.table(width=WIDTH):
            self.log.log(logging.ERROR if done.faults else logging.INFO, "%s", line)
        if done.faults:
            raise stop(
                f"{len(done.faults)} faults: what is there is not what was captured.",
                done="The files were left as they are.",
                next="The table in this task's log names each fault.",
                details=f"The captures are in {self.path}",
            )
        return done.as_dict()


class QuoineCaptureReportOperator(BaseOperator):
    """
    Draw a capture: coverage, gaps and spread over its time, as an SVG file beside it.

    The task's log says where it is, and its link leads there.

    :param path: a capture's folder, or the ``path`` of its summary.
    :param timezone: IANA name of the zone of the time axis.
    :return: the picture's path.
    """

    template_fields: Sequence[str] = ("path", "timezone")
    ui_color = "#dcfce7"
    operator_extra_links = (QuoineCaptureReportLink(),)

    def __init__(self, *, path: str, timezone: str = "UTC", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.timezone = timezone

    def execute(self, context: Context) -> str:
        """
        Draw.

        :raises AirflowFailException: if there is no capture, or there are several.
        :raises OSError: if the store does not answer; a retry may help.
        """
        from airflow_provider_quoine.datasets.reading import one_capture
        from airflow_provider_quoine.datasets.report import facts_of, write_report

        with without_retry():
            capture = one_capture(self.path)
            picture = write_report(capture, timezone=self.timezone)
        self.log.info("%s", facts_of(capture.manifest))
        self.log.info("The picture is %s", picture)
        return str(picture)
