"""The form of a new applicant, filled in and sent as a browser does it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tools.airflow_api import AirflowApi

FORM = "applicants/new"
DAG_ID = "quoine_onboard_applicant"


def send_applicant(api: AirflowApi, fields: Mapping[str, str], documents: Mapping[str, str]) -> str:
    """
    Open the form, fill it in, choose the files, and send it.

    :param fields: name of a field → what is typed
    :param documents: name of a field → path
    :return: id of the run that it has started
    :raises ValueError: with what the page says is wrong
    """
    found = re.search(r'name="token" value="([^"]+)"', api.page("GET", FORM).text)
    assert found, "the page has its form"
    with ExitStack() as files:
        chosen = {name: files.enter_context(Path(path).open("rb")) for name, path in documents.items()}
        typed = {"token": html.unescape(found[1]), "dag_id": DAG_ID, **fields}
        answer = api.page("POST", FORM, data=typed, files=chosen)
    if not answer.is_redirect:
        raise ValueError("; ".join(re.findall(r'class="fault"[^>]*>([^<]+)<', answer.text)) or answer.text)
    return f"applicant__{answer.headers['Location'].rpartition('/')[2]}"
