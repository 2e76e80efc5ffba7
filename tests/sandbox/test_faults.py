"""Faults that make no sense are refused when they are injected."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.partner import Partner

GET = "GET /btc_withdrawals/:id"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"kind": "explode"}, "kind must be one of"),
        ({"kind": "drop_after", "endpoint": "POST /btc_withdrawals"}, "endpoint of drop_after must be one of"),
        ({"kind": "drop_after"}, "endpoint of drop_after must be one of"),
        ({"kind": "truncated", "endpoint": GET, "when": "before"}, "when of truncated must be one of after"),
        ({"kind": "delay", "endpoint": GET}, "needs"),
        ({"kind": "drop_after", "endpoint": GET, "seconds": 1}, "takes"),
        ({"kind": "silence", "endpoint": "stream", "request_contains": "1"}, "takes"),
        ({"kind": "frame", "endpoint": "stream"}, "needs"),
        ({"kind": "object_data", "endpoint": "stream", "when": "now"}, "when of object_data must be one of"),
        ({"kind": "garbage", "endpoint": GET, "times": 0}, "greater than or equal to 1"),
    ],
)
def test_an_invalid_fault_is_refused(by_hand: Partner, order: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        by_hand.control.fault(**order)
    assert by_hand.control.state()["faults"] == []
