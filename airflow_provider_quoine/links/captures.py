"""The link from a task to the picture of a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import ObjectStoragePath
from airflow.sdk.bases.operatorlink import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class QuoineCaptureReportLink(BaseOperatorLink):
    """The picture of a capture, by its URI; a browser opens it where it can reach the store."""

    name = "Picture of the capture"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URI of the picture that the task has drawn, or an empty one."""
        picture = XCom.get_value(ti_key=ti_key, key="return_value")
        return ObjectStoragePath(picture).as_uri() if picture else ""
