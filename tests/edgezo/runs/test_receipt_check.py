"""Receipts that no run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgezo.runs.receipt_check import check_receipt
from edgezo_runtime.errors import RunFileError
from tests.edgezo.written_runs import receipt


def test_receipts_of_runs() -> None:
    check_receipt(receipt(), Path("receipt.json"))
    check_receipt({}, Path("receipt.json"))
    check_receipt({"status": "done", "new_in_a_later_version": [1]}, Path("receipt.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "80"}, "steps"),
        ({"peak_bytes": -1}, "peak_bytes is -1, which no run writes"),
        ({"rows_per_s": 1e300}, "rows_per_s"),
        ({"plan": {"ledger": {"blocks": "x"}, "smallest_bytes": 1}}, "ledger"),
        ({"plan": {"ledger": {}, "smallest_bytes": 2**63}}, "smallest_bytes"),
        ({"warnings": [1]}, "warnings"),
        ({"adapter_sha256": "` <b>"}, "adapter_sha256 is .* expected 64 hexadecimal digits"),
        ({"adapter_sha256": "ab" * 32 + "\n"}, "adapter_sha256"),
    ],
)
def test_others_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunFileError, match=rf"receipt\.json: .*{message}"):
        check_receipt(receipt(**changes), Path("receipt.json"))
