"""Commands of a conversation: lines that begin with a slash."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgezo.cli.terminal.output import note, table
from edgezo_runtime.errors import UsageError, printable
from edgezo_runtime.system.files import atomic_write

if TYPE_CHECKING:
    from edgezo.talk.conversation import Conversation
    from edgezo_runtime.generation.generator import GenerationConfig

HELP = [
    ("/adapter", "who answers, and who could"),
    ("/adapter off", "answer without an adapter"),
    ("/adapter on", "answer with the adapter that answered before"),
    ("/adapter NAME", "answer with this one"),
    ("/again", "answer the last message once more, for example without the adapter"),
    ("/reset", "forget what was said"),
    ("/system [TEXT]", "set the system message, or take that of the template"),
    ("/settings [NAME VALUE]", "show how answers are made, or change it"),
    ("/save FILE", "write the conversation as a row that 'edgezo tune' reads"),
    ("/quit", "end, as Ctrl-D does"),
    ("\\/...", "a message that begins with a slash"),
]

_NUMBERS: dict[str, type] = {
    "max_new_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "seed": int,
}


class Commands:
    """Follows commands.

    Args:
        conversation: what was said.
        config: how answers are made.
        answer: answers a line.

    Attributes:
        config: changed by /settings.
        ended: was /quit given?
    """

    def __init__(
        self,
        conversation: Conversation,
        config: GenerationConfig,
        answer: Callable[[str], None],
    ) -> None:
        self.config = config
        self.ended = False
        self._conversation = conversation
        self._answer = answer
        self._base = next(iter(conversation.speaker.voices))
        others = [name for name in conversation.speaker.voices if name != self._base]
        self._last = conversation.voice if conversation.voice in others else (*others, None)[0]
        self._known: dict[str, Callable[[str], None]] = {
            "/adapter": self._adapter,
            "/again": self._again,
            "/reset": self._reset,
            "/system": self._system,
            "/settings": self._settings,
            "/save": self._save,
            "/help": self._help,
            "/quit": self._quit,
        }

    def follow(self, line: str) -> None:
        """Follow a command.

        Raises:
            UsageError: there is no such command, or it is given wrong words.
        """
        name, _, rest = line.strip().partition(" ")
        if name not in self._known:
            near = difflib.get_close_matches(name, self._known, 1)
            hint = f"did you mean {near[0]}?" if near else "/help lists them"
            raise UsageError(f"{printable(name)}: no such command; {hint}")
        self._known[name](rest.strip())

    def _adapter(self, rest: str) -> None:
        voices = self._conversation.speaker.voices
        if not rest:
            others = [name for name in voices if name != self._conversation.voice]
            note(f"{self._conversation.voice} answers; there are also: {', '.join(others) or '-'}")
            return
        name = {"off": self._base, "on": self._last}.get(rest, rest)
        if name is None:
            raise UsageError("/adapter on: there is no adapter; give `adapter` at the start")
        if name not in voices:
            raise UsageError(f"/adapter {printable(rest)}: there are {', '.join(voices)}")
        self._conversation.speak_to(name)
        if name != self._base:
            self._last = name
        note(f"{name} answers")

    def _again(self, rest: str) -> None:
        if not self._conversation.messages:
            raise UsageError("/again: nothing was said yet")
        with self._conversation.taking_back() as line:
            self._answer(line)

    def _reset(self, rest: str) -> None:
        self._conversation.reset()
        note("what was said is forgotten")

    def _system(self, rest: str) -> None:
        if self._conversation.kind != "turns":
            raise UsageError("/system: there is no place for a system message here")
        self._conversation.system = rest or None
        note(f"system message: {printable(rest, 200) or 'that of the template'}")

    def _settings(self, rest: str) -> None:
        if rest:
            name, _, value = rest.replace("=", " ").partition(" ")
            self._set(name.replace("-", "_"), value.strip())
        speaker = self._conversation.speaker
        sampling = dataclasses.asdict(self.config.sampling)
        rows = {"max_new_tokens": self.config.max_new_tokens, **sampling}
        rows |= {"context": speaker.context, "stop": " ".join(map(repr, self.config.stop)) or "-"}
        for line in table([(key, str(value)) for key, value in rows.items()]):
            note(line)

    def _set(self, name: str, value: str) -> None:
        if name not in _NUMBERS:
            raise UsageError(f"/settings {printable(name)}: can be changed: {', '.join(_NUMBERS)}")
        try:
            number: Any = _NUMBERS[name](value)
        except ValueError as error:
            raise UsageError(f"/settings {name} {printable(value)!r}: not a number") from error
        if name == "max_new_tokens":
            found = dataclasses.replace(self.config, max_new_tokens=number)
        else:
            sampling = dataclasses.replace(self.config.sampling, **{name: number})
            found = dataclasses.replace(self.config, sampling=sampling)
        found.check()
        context = self._conversation.speaker.context
        if found.max_new_tokens >= context:
            raise UsageError(
                f"/settings max_new_tokens {number}: there is room for {context} tokens in all"
            )
        self.config = found

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("/save: give the name of a file")
        if not self._conversation.messages:
            raise UsageError("/save: nothing was said yet")
        path = Path(rest).expanduser()
        if path.exists():
            raise UsageError(f"/save {printable(rest)}: it exists; give another name")
        text = json.dumps(self._conversation.row(), ensure_ascii=False) + "\n"
        atomic_write(path, text.encode())
        note(f"saved to {path}")

    def _help(self, rest: str) -> None:
        for line in table(HELP):
            note(line)

    def _quit(self, rest: str) -> None:
        self.ended = True
