"""What the receiver of an adapter has to know: the tokens that it acts on, and its prompts.

Exports carry it as a model card (README.md) and as metadata, because the formats of other programs
have no place for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import ACTS_ON
from edgezo_runtime.errors import UsageError, printable
from edgezo_runtime.system.typed_json import JsonShapeError, decode, encode, parse_object

CARD_FILE = "README.md"

READING_KEY = "edgezo.reading"
"""Key of the metadata of files for other programs: the reading, in JSON."""

_PROGRAMS = {
    "peft": "PEFT 0.18 and newer do so (alora_invocation_tokens)",
    "gguf": "llama.cpp's server does so (adapter.alora.invocation_tokens)",
    "safetensors": "edgezo does so",
}
"""Programs that apply an adapter to answers only, by format."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How an adapter is used.

    Attributes:
        info: what the adapter says of itself.
        invocation_text: text of the token from which on it acts; "" if that is not known.
    """

    info: AdapterInfo
    invocation_text: str = ""

    def acts_on(self) -> str:
        """The tokens that the adapter acts on, in words."""
        words = ACTS_ON[self.info.scope]
        if self.info.scope == "all":
            return words
        if not self.info.invocation:
            return f"{words}: from the last token of each prompt on"
        (token,) = self.info.invocation
        text = f", '{printable(self.invocation_text)}'," if self.invocation_text else ""
        return f"{words}: from the last token {token}{text} of the prompt on"

    def elsewhere(self, name: str) -> str | None:
        """What programs do that apply every adapter to every token; None if that is right.

        Args:
            name: the format, a key of `FORMATS`.
        """
        if self.info.scope == "all":
            return None
        return (
            f"{_PROGRAMS[name]}; a program without activated LoRA applies the adapter to every "
            f"token: it reports no error, and its scores are not those that were tuned"
        )

    def metadata(self) -> dict[str, str]:
        """The reading, for the metadata of a file; nothing if it is not known."""
        if self.info.reading is None:
            return {}
        return {READING_KEY: json.dumps(encode(self.info.reading), sort_keys=True)}

    def card(self, library: str, name: str) -> str:
        """The model card, in Markdown.

        Args:
            library: the program that loads the adapter, as the Hugging Face hub names it.
            name: the format.
        """
        info = self.info
        head = {"base_model": info.model, "library_name": library, "tags": ["edgezo", "lora"]}
        if info.scheme.kind not in ("lora", "lora-xs"):
            head["tags"] = ["edgezo", info.scheme.kind]
        lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
        lines += [f"# An adapter of {_plain(info.model)}", ""]
        lines += [f"Tuned by {_plain(info.created_by)} in {info.steps} steps.", ""]
        lines += ["## Tokens", ""]
        if name == "merged":
            lines += ["The adapter is merged into the weights.", ""]
        else:
            lines += [f"The adapter acts on {_plain(self.acts_on())}.", ""]
            where = self.elsewhere(name)
            lines += (
                [] if where is None else [f"{_plain(where)[0].upper()}{_plain(where)[1:]}.", ""]
            )
        return "\n".join([*lines, *self._prompts()])

    def _prompts(self) -> list[str]:
        reading = self.info.reading
        lines = ["## Prompts", ""]
        if reading is None:
            return [*lines, "The adapter does not say which prompts it was tuned on.", ""]
        values = json.dumps(encode(reading), indent=2)
        lines += ["```json", *values.splitlines(), "```", ""]
        if reading.template is None:
            lines += ["Rows have no template: their own fields make prompts and answers.", ""]
        else:
            lines += ["A name in braces stands for a field of the row.", ""]
        if reading.labels:
            lines += [
                "Each label word stands for a class, from class 0 on. The class of a row is the "
                "word that is most likely to follow its prompt.",
                "",
            ]
        return lines


def read_metadata(text: str) -> Reading:
    """Read the reading in the metadata of a file.

    Raises:
        JsonShapeError: the text is no reading.
    """
    reading = decode(Reading, parse_object(text))
    try:
        reading.check()
    except UsageError as error:
        raise JsonShapeError(str(error)) from error
    return reading


def _plain(text: str) -> str:
    """A text that Markdown does not format: names may come from strangers."""
    marks = "\\`*_<>[]#|"
    return "".join(f"\\{char}" if char in marks else char for char in printable(text, 400))
