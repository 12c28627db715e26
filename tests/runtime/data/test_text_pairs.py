"""Rows of two texts that belong together."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.text_pairs import build_pairs
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_tokenizer import byte_tokenizer


def tokenizer() -> TextTokenizer:
    return TextTokenizer(byte_tokenizer().core, pad_id=0, task="embedding", width=4)


def rows(*fields: dict[str, object]) -> list[Row]:
    return [Row(own, number, f"row {number}") for number, own in enumerate(fields, 1)]


def test_texts_follow_each_other():
    found = build_pairs(rows({"query": "ab", "passage": "cde"}), tokenizer(), 9)
    (example,) = found.examples
    assert example.places.tolist() == [1, 4]
    assert example.tokens.tolist() == tokenizer().encode("ab", add_special=True) + (
        tokenizer().encode("cde", add_special=True)
    )


def test_a_batch_has_two_rows_per_pair():
    reader = RowReader(tokenizer(), max_seq=9)
    found = reader.take([{"query": "ab", "passage": "cde"}, {"query": "f", "passage": "g"}])
    assert (found.kind, found.sequences_per_example, found.classified) == ("pairs", 2, False)
    assert found.lengths().tolist() == [3, 1]
    assert found.sequence_lengths().tolist() == [2, 3, 1, 1]
    batch = make_batch(found, [0, 1])
    assert batch.input_ids.shape == (4, 3)
    assert batch.positions.tolist() == [[0, 1], [1, 2], [2, 0], [3, 0]]
    np.testing.assert_array_equal(batch.label_ids, np.arange(4))
    assert batch.row_example.tolist() == [0, 0, 1, 1]


def test_long_texts_keep_their_last_token():
    given = rows({"text1": "abcdef", "text2": "gh"})
    found = build_pairs(given, tokenizer(), 4)
    whole = tokenizer().encode("abcdef", add_special=True)
    assert found.examples[0].tokens[:4].tolist() == [*whole[:3], whole[-1]]
    assert found.truncation.tokens == 2
    assert build_pairs(given, tokenizer(), 4, long="drop").truncation.dropped_rows == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": "a"}, "no pair of texts; the row has .*expected one of anchor/positive"),
        ({"query": "a", "passage": " "}, "field 'passage' is empty"),
        ({"query": "a", "passage": 3}, "field 'passage' is .*expected a text"),
    ],
)
def test_rows_that_are_no_pairs(fields, message):
    with pytest.raises(DataError, match=message):
        build_pairs(rows(fields), tokenizer(), 9)


def test_a_template_makes_no_sense():
    with pytest.raises(UsageError, match="reads pairs of texts"):
        RowReader(tokenizer(), "{query}", (" a", " b"))
