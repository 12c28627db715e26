"""Rows, and values that JSON does not have."""

from edgezo_runtime.data.files.row import ForeignValue, Row
from edgezo_runtime.data.template import kind_of


def test_a_foreign_value_is_named() -> None:
    row = Row({"image": ForeignValue("binary")}, 1, "f, row 1")
    assert kind_of(row.fields["image"]) == "a value of the type binary"
