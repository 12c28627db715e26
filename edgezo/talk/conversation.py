"""A conversation with one voice at a time: what was said, and the prompts it makes.

There are three kinds. With a chat template, turns follow each other. A voice that was tuned on rows
of a template gets each text alone, in that template. Without either, texts are continued.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgezo.talk.turns import Message, fit_turns
from edgezo_runtime.data.template import Template
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.talk.speaker import Speaker

Kind = Literal["turns", "rows", "text"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads for an answer.

    Attributes:
        tokens: of the prompt.
        left_out: messages of the conversation that there was no room for.
        most: most new tokens that make sense; None for no such limit.
    """

    tokens: list[int]
    left_out: int = 0
    most: int | None = None


@dataclass(slots=True)
class Conversation:
    """What was said so far.

    Attributes:
        speaker: answers.
        voice: name of the one that answers.
        system: the system message; None for that of the template.
        messages: of user and assistant, without it.
        text: all that was continued, where there are no turns.
    """

    speaker: Speaker
    voice: str
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    text: str = ""

    @property
    def kind(self) -> Kind:
        """How the voice is spoken to."""
        if self.speaker.voices[self.voice].template is not None:
            return "rows"
        return "turns" if self.speaker.chats else "text"

    def check(self) -> None:
        """Refuse voices that nobody can speak to in lines.

        Raises:
            UsageError: its template has several fields.
        """
        self._field()

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
        name = self._field()
        if name is not None:
            return self._row(name, line, room)
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

    def take_back(self) -> str | None:
        """Forget the last line and its answer; returns the line, None if there is none."""
        if not self.messages:
            return None
        line, answer = (message["content"] for message in self.messages[-2:])
        del self.messages[-2:]
        self.text = self.text.removesuffix(line + answer)
        return str(line)

    def reset(self) -> None:
        """Forget all that was said; the system message stays."""
        self.messages.clear()
        self.text = ""

    def row(self) -> dict[str, Any]:
        """The conversation as a row of data that a run can be tuned on."""
        own = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*own, *self.messages]}

    # --- parts ---

    def _field(self) -> str | None:
        """The only field of the voice's template; None without a template."""
        voice = self.speaker.voices[self.voice]
        if voice.template is None:
            return None
        names = dict.fromkeys(Template.parse(voice.template).names)
        if len(names) > 1:
            raise UsageError(
                f"{voice.name} was tuned on rows of several fields ({', '.join(names)}), which a "
                f"line does not have; 'edgezo generate --row' takes them"
            )
        return next(iter(names))

    def _row(self, name: str, line: str, room: int) -> Prompt:
        """A line in the template of the voice; an answer is no longer than its label words."""
        voice, tokenizer = self.speaker.voices[self.voice], self.speaker.tokenizer
        assert voice.reading is not None
        assert voice.template is not None
        text = Template.parse(voice.template).render({name: line})
        tokens = self.speaker.text_prompt(text)
        if len(tokens) > room:
            raise UsageError(f"the line has {len(tokens)} tokens; there is room for {room}")
        labels = voice.reading.labels
        sizes = [len(tokenizer.encode(label, add_special=False)) for label in labels]
        return Prompt(tokens, most=max(sizes, default=0) or None)

    def _continued(self, text: str, room: int) -> Prompt:
        """The end of the text, as much as there is room for."""
        tokens = self.speaker.text_prompt(text)
        return Prompt(tokens[-room:] if len(tokens) > room else tokens)
