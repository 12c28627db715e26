"""A conversation with one voice at a time: what was said, and the prompts it makes.

There are three kinds. With a chat template, turns follow each other. A voice tuned on rows of a
template gets each text alone, in that template, and chooses a label word if the rows had any.
Without either, texts are continued.

The base model is spoken to as the adapter before it was, so that the two can be compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgezo.talk.turns import Message, fit_turns
from edgezo_runtime.data.template import Template
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.talk.speaker import Speaker
    from edgezo_runtime.data.reading import Reading

Kind = Literal["turns", "rows", "text"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads for an answer.

    Attributes:
        tokens: of the prompt.
        left_out: messages of the conversation that there was no room for.
        cut: tokens at the beginning of a text that there was no room for.
    """

    tokens: list[int]
    left_out: int = 0
    cut: int = 0


@dataclass(slots=True)
class Conversation:
    """What was said so far.

    Attributes:
        speaker: answers.
        voice: name of the one that answers.
        system: the system message; None for that of the template.
        messages: of user and assistant, without it.
        text: all that was continued, where there are no turns.
        reading: how the rows are read that a line stands for; None: by no template.
    """

    speaker: Speaker
    voice: str
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    text: str = ""
    reading: Reading | None = None

    def __post_init__(self) -> None:
        """Speak to the first voice as it was tuned."""
        self.speak_to(self.voice)

    @property
    def kind(self) -> Kind:
        """How the voice is spoken to."""
        if self.reading is not None and self.reading.template is not None:
            return "rows"
        return "turns" if self.speaker.chats else "text"

    @property
    def chooses(self) -> bool:
        """Is an answer one of some label words?"""
        return self.kind == "rows" and self.reading is not None and bool(self.reading.labels)

    def speak_to(self, name: str) -> None:
        """Have another voice answer.

        Raises:
            UsageError: its template has several fields, which a line does not have.
        """
        reading = self.speaker.voices[name].reading or self.reading
        if reading is not None and reading.template is not None:
            names = dict.fromkeys(Template.parse(reading.template).names)
            if len(names) > 1:
                raise UsageError(
                    f"{name} was tuned on rows of several fields ({', '.join(names)}), which a "
                    f"line does not have; 'edgezo generate --row' takes them"
                )
        self.voice, self.reading = name, reading

    def choose(self, line: str) -> list[tuple[str, float]]:
        """The label words for a line, with their probabilities, the likeliest first."""
        assert self.reading is not None
        return self.speaker.choose(self.voice, self.reading, line)

    def prompt(self, line: str, new_tokens: int) -> Prompt:
        """The prompt for the answer to a line, which is not noted yet.

        Args:
            line: what the user says.
            new_tokens: most tokens of the answer.
        Raises:
            UsageError: it is too long.
            EdgezoError: the template refuses it.
        """
        room = self.speaker.context - new_tokens
        if self.kind == "rows":
            return self._row(line, room)
        if self.kind == "text":
            return self._continued(self.text + line, room)
        asked = [*self.messages, {"role": "user", "content": line}]
        own = [] if self.system is None else [{"role": "system", "content": self.system}]
        tokens, shown = fit_turns([*own, *asked], self.speaker.chat_prompt, room)
        left_out = len(own) + len(asked) - len(shown)
        return Prompt(tokens, left_out)

    def note(self, line: str, answer: str, left_out: int = 0) -> None:
        """Add a line and its answer.

        Args:
            line: what the user said.
            answer: what the model wrote.
            left_out: messages that there is no room for any more; they are forgotten.
        """
        if self.kind == "text":
            self.text += line + answer
        del self.messages[:left_out]
        self.messages += [
            {"role": "user", "content": line},
            {"role": "assistant", "content": answer},
        ]

    @contextlib.contextmanager
    def taking_back(self) -> Iterator[str]:
        """Forget the last line and its answer; an error in the block brings them back.

        Something must have been said. Yields the line.
        """
        messages, text = list(self.messages), self.text
        line, answer = (str(message["content"]) for message in messages[-2:])
        del self.messages[-2:]
        self.text = text.removesuffix(line + answer)
        try:
            yield line
        except BaseException:
            self.messages, self.text = messages, text
            raise

    def reset(self) -> None:
        """Forget all that was said; the system message stays."""
        self.messages.clear()
        self.text = ""

    def row(self) -> dict[str, Any]:
        """The conversation as a row of data that a run can be tuned on."""
        own = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*own, *self.messages]}

    # --- parts ---

    def _row(self, line: str, room: int) -> Prompt:
        """A line in the template."""
        assert self.reading is not None
        assert self.reading.template is not None
        template = Template.parse(self.reading.template)
        tokens = self.speaker.text_prompt(template.render(dict.fromkeys(template.names, line)))
        if len(tokens) > room:
            raise UsageError(f"the line has {len(tokens)} tokens; there is room for {room}")
        return Prompt(tokens)

    def _continued(self, text: str, room: int) -> Prompt:
        """The end of the text, as much as there is room for."""
        tokens = self.speaker.text_prompt(text)
        cut = max(0, len(tokens) - room)
        return Prompt(tokens[cut:], cut=cut)
