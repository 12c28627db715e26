"""The spelling of single tokens: their text, and their bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgezo_runtime.data.tokenizer import TextTokenizer

_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _letters() -> dict[str, bytes]:
    """The letter of each byte in the names of tokens, as GPT-2's tokenizer writes them.

    Bytes that are printed in Latin-1 are their own letters; the others are letters from 256 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    own = {chr(byte): bytes([byte]) for byte in plain}
    return own | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTES = _letters()


@dataclass(frozen=True, slots=True)
class Spelled:
    """A token as clients see it.

    Attributes:
        text: its text. Bytes that are no whole characters are written "bytes:\\xe2\\x82", so that
            different tokens have different texts.
        raw: its bytes in a text; None if it has none there, as special tokens.
    """

    text: str
    raw: bytes | None


class Spelling:
    """Spells the tokens of a tokenizer.

    Args:
        tokenizer: the tokenizer.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._core = tokenizer.core

    def of(self, token: int) -> Spelled:
        """Spell a token, as it continues a text.

        Args:
            token: its id.
        """
        if (added := self._added.get(token)) is not None:
            content, special = added
            return Spelled(content, None if special else content.encode())
        name = self._tokenizer.token_text(token)
        if not name:  # models may have more logits than their tokenizer has tokens
            return Spelled(f"token_id:{token}", None)
        raw = self._bytes(token, name)
        try:
            return Spelled(raw.decode(), raw)
        except UnicodeDecodeError:
            return Spelled("bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw)

    def _bytes(self, token: int, name: str) -> bytes:
        if self._of_bytes:
            return b"".join(_BYTES.get(letter, letter.encode()) for letter in name)
        found = _ONE_BYTE.fullmatch(name)
        if found is not None and self._decodes(["<0x41>"]) == "A":
            return bytes([int(found[1], 16)])
        before = self._tokenizer.decode(self._before)  # at the start, a space would be left out
        return self._tokenizer.decode([*self._before, token])[len(before) :].encode()

    @cached_property
    def _added(self) -> dict[int, tuple[str, bool]]:
        found = self._core.get_added_tokens_decoder()
        ends = self._tokenizer.eos_ids
        own = {number: (token.content, token.special) for number, token in found.items()}
        return own | {n: (self._tokenizer.token_text(n), True) for n in ends if n not in own}

    @cached_property
    def _of_bytes(self) -> bool:
        """Are names of tokens bytes, written as GPT-2's tokenizer does?"""
        return self._decodes(["aĠ", "b"]) == "a b"

    def _decodes(self, names: list[str]) -> str:
        decoder = self._core.decoder
        return "" if decoder is None else decoder.decode(names)

    @cached_property
    def _before(self) -> list[int]:
        """Tokens that a token is decoded behind."""
        return self._tokenizer.encode("a", add_special=False)
