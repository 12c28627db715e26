"""Fields that edgezo knows and does not read are counted once."""

from edgezo_runtime.data.unused_fields import UnusedFields, unused_by_template


def test_counts() -> None:
    unused = UnusedFields(frozenset({"a", "b", "c"}))
    for fields in ({"a": 1, "b": 2}, {"a": 1, "b": 3, "d": 4}, {"b": None, "c": ""}, {"b": []}):
        unused.look(fields, frozenset({"a"}), "x")
    assert [(w.name, w.count, w.message) for w in unused.warnings()] == [
        ("unused-field", 2, "2 rows have a field 'b', which x does not use")
    ]


def test_a_template_leaves_fields_out_by_intention() -> None:
    unused = unused_by_template()
    unused.look({"text": "a", "output": "b", "history": [["a", "b"]]}, frozenset(), "x")
    assert [w.message for w in unused.warnings()] == [
        "1 rows have a field 'history', which x does not use"
    ]
