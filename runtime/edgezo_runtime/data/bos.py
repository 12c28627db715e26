"""Texts that begin with the token that starts a text: it is not added a second time."""

from __future__ import annotations

from collections.abc import Iterator

from edgezo_runtime.data.example_set import DataWarning
from edgezo_runtime.data.tokenizer import TextTokenizer


def bos_warning(tokenizer: TextTokenizer, rows: int) -> Iterator[DataWarning]:
    """Warn if rows begin with that token."""
    if rows:
        yield DataWarning(
            "double-bos",
            f"{rows} rows begin with {tokenizer.token_text(tokenizer.bos_id)!r}, which the "
            "tokenizer puts before every text; they keep one; leave it out of the rows",
            rows,
        )
