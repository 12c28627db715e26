"""About how many rows files have, while they are read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.place import Place
from edgezo_runtime.data.row_reader import RowReader
from tests.runtime.tiny_tokenizer import byte_tokenizer

ROWS = 4000


def lines(count: int = ROWS) -> bytes:
    """Rows of the same length, which gzip makes no shorter than half."""
    draws = random.Random(0)
    rows = ({"prompt": draws.randbytes(100).hex(), "completion": "good"} for _ in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("array", [False, True])
def test_the_number_is_known_after_a_few_rows(tmp_path: Path, packed: bool, array: bool) -> None:
    content = lines()
    if array:
        content = b"[" + b",".join(content.splitlines()) + b"]"
    path = tmp_path / "f.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    place = Place([path])
    found = [place.expected(n) for n, _ in enumerate(DataFiles.of(path).rows(None, place))]
    assert found[0] == 0
    # bytes are taken some thousands at a time, so the first rows say little
    shares = [own / ROWS for own in found[ROWS // 2 :]]
    assert all(0.7 < share <= 1.05 for share in shares)
    assert all(own >= n for n, own in enumerate(found))


def test_several_files_and_parquet_are_counted_together(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [tmp_path / f"{n}.parquet" for n in range(3)]
    for path in paths:
        table = arrow.table({"n": list(range(1000))})
        parquet.write_table(table, path)
    place = Place(paths)
    found = [place.expected(n) for n, _ in enumerate(DataFiles.of(*paths).rows(None, place))]
    assert found[500] == pytest.approx(3000, rel=0.01)
    assert found[2500] == pytest.approx(3000, rel=0.01)


def test_a_limit_is_the_most(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(lines())
    place = Place([path], 300)
    found = [place.expected(n) for n, _ in enumerate(DataFiles.of(path).rows(300, place))]
    assert max(found) == 300


def test_a_reader_tells_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(lines(1000))
    told: list[tuple[int, int]] = []
    reader = RowReader(byte_tokenizer(), tell=lambda done, total: told.append((done, total)))
    assert len(reader.read(path)) == 1000
    assert [done for done, _ in told] == [0, 250, 500, 750]
    assert told[0][1] == 0
    assert all(900 < total <= 1100 for _, total in told[2:])
