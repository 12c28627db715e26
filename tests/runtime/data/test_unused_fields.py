"""Fields that nothing reads are counted once: known ones by themselves, all others together."""

from edgezo_runtime.data.unused_fields import UnusedFields, unused_by_template


def test_counts() -> None:
    unused = UnusedFields(frozenset({"a", "b", "c"}))
    rows = ({"a": 1, "b": 2}, {"a": 1, "b": 3, "d": 4}, {"b": None, "c": ""}, {"b": [], "d": 0})
    for fields in rows:
        unused.look(fields, frozenset({"a"}), "x")
    assert [(w.name, w.count, w.message) for w in unused.warnings()] == [
        ("unused-field", 2, "2 rows have a field 'b', which x does not use"),
        ("unused-fields", 2, "2 rows have fields that are not used: 'd'"),
    ]


def test_a_template_knows_structured_fields_only() -> None:
    unused = unused_by_template()
    unused.look({"text": "a", "output": "b", "history": [["a", "b"]]}, frozenset({"text"}), "x")
    assert [w.message for w in unused.warnings()] == [
        "1 rows have a field 'history', which x does not use",
        "1 rows have fields that are not used: 'output'",
    ]


def test_many_names_are_not_all_told() -> None:
    """Every row of a file may have a field of its own."""
    unused = UnusedFields(frozenset())
    for number in range(3000):
        unused.look({f"n{number}" * 20: 1, "id": number + 1}, frozenset(), "x")
    (told,) = unused.warnings()
    assert told.count == 3000
    assert told.message.startswith("3000 rows have fields that are not used: 'id', 'n0n0")
    assert told.message.count("'") == 16
    assert len(told.message) < 500
    assert len(unused._others) < 1010


def test_fields_that_a_reward_may_read_are_not_told() -> None:
    unused = UnusedFields(frozenset({"a"}), others=False)
    unused.look({"a": 1, "rubric": "short"}, frozenset(), "x")
    assert [w.name for w in unused.warnings()] == ["unused-field"]
