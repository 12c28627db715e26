"""Text to token ids and back, with the bundle's tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from edgezo_runtime.errors import BundleError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Task = Literal["causal-lm", "masked-lm"]


class TokenizerSettings(Protocol):
    """What the manifest says about the tokenizer (`manifest.TokenizerInfo`)."""

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
        pad_id: fills the end of short sequences.
        bos_id: starts a text, if `add_bos`.
        eos_ids: end a text; the first is the one written.
        unk_id: stands for what the vocabulary does not know.
        mask_id: the place to fill in, for masked-lm.
        add_bos: does a text start with `bos_id`.
        chat_template: Jinja source that turns messages into one text, or None.
        task: masked-lm texts get all special tokens of the tokenizer, such as [CLS] and [SEP].
    """

    core: Tokenizer
    pad_id: int
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    unk_id: int | None = None
    mask_id: int | None = None
    add_bos: bool = False
    chat_template: str | None = None
    task: Task = "causal-lm"

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, and settings left in the file."""
        if self.add_bos and self.bos_id is None:
            raise BundleError("tokenizer: add_bos is set but bos_id is not; export the model again")
        if self.task == "masked-lm" and self.mask_id is None:
            raise BundleError("tokenizer: a masked-lm bundle needs mask_id; export the model again")
        self.core.no_truncation()
        self.core.no_padding()

    @classmethod
    def open(
        cls, folder: str | Path, settings: TokenizerSettings, *, task: Task = "causal-lm"
    ) -> TextTokenizer:
        """Load the tokenizer of a bundle.

        Args:
            folder: the bundle.
            settings: the manifest's `tokenizer`.
            task: the manifest's `model.task`.

        Returns:
            The tokenizer.

        Raises:
            BundleError: a file is missing or cannot be understood.

        Memory:
            The vocabulary: 10 to 100 MB.
        """
        from tokenizers import Tokenizer

        path = Path(folder, settings.file)
        if not path.is_file():
            raise BundleError(f"{path}: no such file; export the model again")
        try:
            core = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises Exception itself
            raise BundleError(
                f"{path}: the tokenizers package cannot read it ({error}); "
                "update the package, or export the model again"
            ) from error
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
        )

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Turn text into token ids.

        Args:
            text: the text; the names of special tokens in it become those tokens.
            add_special: start with `bos_id` if `add_bos`; for masked-lm add all special tokens.

        Returns:
            The ids.
        """
        return self.encode_spans(text, add_special=add_special)[0]

    def encode_spans(
        self, text: str, *, add_special: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Turn text into token ids and the characters [start, end) each one stands for.

        Args:
            text: as for `encode`.
            add_special: as for `encode`.

        Returns:
            Ids and spans, of equal length; an added token stands for (0, 0).
        """
        masked = self.task == "masked-lm"
        encoding = self.core.encode(text, add_special_tokens=add_special and masked)
        ids, spans = list(encoding.ids), list(encoding.offsets)
        if add_special and self.add_bos and not masked and self.bos_id is not None:
            return [self.bos_id, *ids], [(0, 0), *spans]
        return ids, spans

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn token ids into text, by default without the special tokens."""
        return self.core.decode(list(ids), skip_special_tokens=skip_special)

    def token_text(self, token_id: int | None) -> str:
        """The text of one token as the vocabulary has it; empty for None or an unknown id."""
        return ("" if token_id is None else self.core.id_to_token(token_id)) or ""


def _read_template(folder: str | Path, name: str | None) -> str | None:
    if name is None:
        return None
    path = Path(folder, name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path}: cannot read the chat template ({error}); export the model again"
        ) from error
