"""Text to token ids and back, with the bundle's tokenizer.json."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgezo_runtime.bundle.manifest_types import ModelTask
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_IDS = 2**31 - 1
_LARGEST_FILE, _LARGEST_TEMPLATE = 512 << 20, 1 << 20
_REMEDY = "export the model again"
_PREFIX = re.compile(r'"continuing_subword_prefix"\s*:(?!\s*(?:null|""))')
_SPELT = re.compile(r"\\u00[2-7]")


class TokenizerSettings(Protocol):
    """The manifest's settings of the tokenizer (`manifest_types.TokenizerInfo`)."""

    @property
    def file(self) -> str: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_ids(self) -> tuple[int, ...]: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def unk_id(self) -> int | None: ...
    @property
    def mask_id(self) -> int | None: ...
    @property
    def add_bos(self) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class TextTokenizer:
    """A tokenizer that neither truncates nor pads.

    Attributes:
        core: the tokenizer of the `tokenizers` package.
        pad_id: token that fills the end of short sequences.
        bos_id: token that starts a text, if `add_bos` is set.
        eos_ids: tokens that end a text; training examples end with the first one. A chat template
            may end turns with another one (`chat.turn_end.stop_tokens`).
        unk_id: token for text outside the vocabulary.
        mask_id: token at the place to fill in, for masked-lm.
        add_bos: True if a text starts with `bos_id`; where it is written already, none is added.
        chat_template: Jinja source that turns messages into one text, or None.
        task: what the model does; texts of encoders (all tasks but causal-lm) get all special
            tokens of the tokenizer, such as [CLS] and [SEP].
        vocab_size: upper bound of the model's token ids, exclusive.
        longest: most tokens of a row that the model takes.
        width: numbers of a hidden state of the model.
        classes: names of the classes of the model's head, if it has a classification head.
    """

    core: Tokenizer
    pad_id: int
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    unk_id: int | None = None
    mask_id: int | None = None
    add_bos: bool = False
    chat_template: str | None = None
    task: ModelTask = "causal-lm"
    vocab_size: int = _MOST_IDS
    longest: int = _MOST_IDS
    width: int = 0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictory settings; disable the file's truncation and padding."""
        if self.add_bos and self.bos_id is None:
            raise BundleError("tokenizer: add_bos is set but bos_id is not; export the model again")
        if self.task == "masked-lm" and self.mask_id is None:
            raise BundleError("tokenizer: a masked-lm bundle needs mask_id; export the model again")
        self.core.no_truncation()
        self.core.no_padding()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        settings: TokenizerSettings,
        *,
        task: ModelTask = "causal-lm",
        vocab_size: int = _MOST_IDS,
        longest: int = _MOST_IDS,
        width: int = 0,
        classes: tuple[str, ...] = (),
    ) -> TextTokenizer:
        """Load the tokenizer of a bundle.

        Args:
            folder: folder of the bundle.
            settings: the manifest's `tokenizer`.
            task: the manifest's `model.task`.
            vocab_size: the manifest's `model.vocab_size`.
            longest: the manifest's `model.max_seq`.
            width: the manifest's `model.hidden_size`.
            classes: names of the classes of a classification head.

        Returns:
            The tokenizer.

        Raises:
            BundleError: a file is missing or damaged.

        Memory:
            The vocabulary: 10 to 100 MB.
        """
        from tokenizers import Tokenizer

        path = Path(folder, settings.file)
        text = _read_text(path, _LARGEST_FILE)
        check_tokenizer(text, str(path))
        with _refusing(
            f"{path}: the tokenizers package cannot read it",
            "update the package, or export the model again",
        ):
            core = Tokenizer.from_str(text)
        return cls(
            core=core,
            pad_id=settings.pad_id,
            bos_id=settings.bos_id,
            eos_ids=settings.eos_ids,
            unk_id=settings.unk_id,
            mask_id=settings.mask_id,
            add_bos=settings.add_bos,
            chat_template=_read_template(folder, settings.chat_template),
            task=task,
            vocab_size=vocab_size,
            longest=longest,
            width=width,
            classes=classes,
        )

    def remedy_for_length(self, max_seq: int = 0) -> str:
        """Say what helps where rows are too long.

        Args:
            max_seq: the limit that they exceed, where it is known.
        """
        if max_seq >= self.longest:
            return f"this model takes no rows of more than {self.longest} tokens"
        if self.longest == _MOST_IDS:
            return "raise `max_seq`"
        return f"raise `max_seq` (this model takes at most {self.longest})"

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Turn text into token ids.

        Args:
            text: the text; the names of special tokens in it become those tokens.
            add_special: start with `bos_id` if `add_bos`, unless the text itself does; for
                masked-lm add all special tokens.

        Returns:
            The ids.
        """
        return self.encode_spans(text, add_special=add_special)[0]

    def encode_spans(
        self, text: str, *, add_special: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Turn text into token ids and the span of characters [start, end) of each.

        Args:
            text: the text; the names of special tokens in it become those tokens.
            add_special: start with `bos_id` if `add_bos`, unless the text itself does; for
                masked-lm add all special tokens.

        Returns:
            Ids and spans, of equal length; the span of an added token is (0, 0).

        Raises:
            BundleError: the tokenizer fails, or makes tokens that the model does not have.
        """
        masked = self.encodes
        with _refusing(f"the bundle's tokenizer cannot read {text[:40]!r}", _REMEDY):
            encoding = self.core.encode(text, add_special_tokens=add_special and masked)
            ids, spans = list(encoding.ids), list(encoding.offsets)
        if ids and max(ids) >= self.vocab_size:
            raise BundleError(
                f"the bundle's tokenizer makes the token {max(ids)}, its model has "
                f"{self.vocab_size}; {_REMEDY}"
            )
        if add_special and masked and self._begins_twice(ids):
            return ids[1:], spans[1:]
        if add_special and self.add_bos and not masked and ids[:1] != [self.bos_id]:
            return [self.bos_id or 0, *ids], [(0, 0), *spans]
        return ids, spans

    @property
    def encodes(self) -> bool:
        """Does the model read whole texts, in both directions?"""
        return self.task != "causal-lm"

    def writes_bos(self, text: str) -> bool:
        """Tell whether a text begins with the token that the tokenizer starts a text with itself.

        Then `encode` adds no second one.
        """
        if not self.add_bos and not self.encodes:
            return False
        start = self.token_text(self.bos_id)
        return bool(start) and text.startswith(start)

    def _begins_twice(self, ids: Sequence[int]) -> bool:
        return self.bos_id is not None and list(ids[:2]) == [self.bos_id] * 2

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn token ids into text, by default without the special tokens.

        Raises:
            BundleError: the tokenizer fails.
        """
        with _refusing("the bundle's tokenizer cannot decode tokens", _REMEDY):
            return self.core.decode(list(ids), skip_special_tokens=skip_special)

    def token_text(self, token_id: int | None) -> str:
        """Return a token's text in the vocabulary; empty for None or an unknown id."""
        with _refusing("the bundle's tokenizer does not know its tokens", _REMEDY):
            return ("" if token_id is None else self.core.id_to_token(token_id)) or ""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token found in a text.

    Attributes:
        token: its id.
        end: position behind its last character.
    """

    token: int
    end: int


class AddedTokens:
    """The tokens that a tokenizer finds in a text before all others, such as "<|im_end|>"."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Collect them, and the end tokens; tokens of spaces only are left out."""
        with _refusing("the bundle's tokenizer does not know its tokens", _REMEDY):
            added = tokenizer.core.get_added_tokens_decoder()
        texts = {token.content: number for number, token in added.items()}
        texts |= {tokenizer.token_text(number): number for number in tokenizer.eos_ids}
        self._ids = {text: number for text, number in texts.items() if text.strip()}
        self._sizes = sorted({len(text) for text in self._ids}, reverse=True)
        self.ids = frozenset(self._ids.values())

    def at(self, text: str, start: int) -> AddedToken | None:
        """Return the longest one that begins at a position."""
        for size in self._sizes:
            token = self._ids.get(text[start : start + size])
            if token is not None:
                return AddedToken(token, start + size)
        return None

    def first_in(self, text: str) -> AddedToken | None:
        """Return the first one in a text."""
        found = (self.at(text, start) for start in range(len(text)))
        return next((token for token in found if token is not None), None)

    def ends(self, text: str) -> bool:
        """Tell whether a text ends with one."""
        return any(text[-size:] in self._ids for size in self._sizes)


def check_tokenizer(text: str, where: str) -> None:
    """Refuse a file with which the tokenizers package reads beyond its memory.

    If a BPE model has a `continuing_subword_prefix`, the package (0.23) removes as many bytes from
    the second part of each merge, even if the part does not begin with the prefix.

    Args:
        text: content of tokenizer.json.
        where: path of the file, for the message.
    Raises:
        BundleError: a merge lacks the prefix, or the file is not JSON.
    """
    if not (_PREFIX.search(text) or _SPELT.search(text)):
        return
    try:
        model = parse_object(text, max_values=None).get("model")
    except JsonShapeError as error:
        raise BundleError(f"{where}: {error}; {_REMEDY}") from error
    if not isinstance(model, dict) or not model.get("continuing_subword_prefix"):
        return
    prefix, merges = str(model["continuing_subword_prefix"]), model.get("merges", [])
    for merge in merges if isinstance(merges, list) else []:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or not str(parts[-1:] and parts[-1]).startswith(prefix):
            raise BundleError(
                f"{where}: merge {str(merge)[:80]!r} without {prefix!r:.40}; {_REMEDY}"
            )


@contextlib.contextmanager
def _refusing(what: str, remedy: str) -> Iterator[None]:
    """Turn every error of the tokenizers package into a BundleError.

    The package raises plain Exception, and its panics derive from BaseException only.

    Raises:
        BundleError: the package failed.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise BundleError(f"{what} ({str(error)[:200]}); {remedy}") from error


def _read_template(folder: str | Path, name: str | None) -> str | None:
    return None if name is None else _read_text(Path(folder, name), _LARGEST_TEMPLATE)


def _read_text(path: Path, limit: int) -> str:
    """Read a text file of the bundle.

    Raises:
        BundleError: the file is missing, too large, or not UTF-8.
    """
    if not path.exists():
        raise BundleError(f"{path}: no such file; {_REMEDY}")
    try:
        return read_regular(path, limit).decode("utf-8")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: cannot be read: {error}; {_REMEDY}") from error
