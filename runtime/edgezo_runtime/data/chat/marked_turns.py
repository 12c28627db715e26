"""Messages with marks in them, which show where a rendering puts their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgezo_runtime.data.chat.marks import take_out
from edgezo_runtime.data.chat.messages import Message, content_of

_OPEN = re.compile(r"\s*(?:<think>\s*)?")
_SPACES = re.compile(r"\s*")
_CLOSE = "</think>"

_Part = Literal["front", "answer", "end", "call"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a rendering shows the parts of a message; None where a part is not shown once.

    Attributes:
        start: the first character of its content; of its answer, if its reasoning is not shown.
        end: position behind its content.
        call: position behind the name of the last function that it calls.
        shows_calls: False if the rendering does not show that name.
    """

    start: int | None
    end: int | None
    call: int | None
    shows_calls: bool


class MarkedTurns:
    """A conversation with marks in some messages.

    The marks are put behind spaces and an opening `<think>`, behind a closing `</think>`, before
    the spaces at the end, and behind the name of the last function called: templates trim and split
    contents there.

    Attributes:
        messages: the conversation with its marks.
    """

    def __init__(
        self, messages: Sequence[Message], turns: Sequence[int], marks: Iterator[str]
    ) -> None:
        """Put marks into the messages with the numbers `turns`."""
        self._marks: dict[str, tuple[int, _Part]] = {}
        self.messages = list(messages)
        for index in turns:
            self.messages[index] = self._marked(index, messages[index], marks)

    def places(self, marked: str, plain: str) -> dict[int, Places] | None:
        """Return the places of the marked messages in the rendering without marks.

        Args:
            marked: the rendering of these messages.
            plain: the rendering of the messages without marks.

        Returns:
            The places by number of the message; None if the marks changed the rendering.
        """
        text, found = take_out(marked, list(self._marks))
        if text != plain:
            return None
        places = {index: Places(None, None, None, True) for index, _ in self._marks.values()}
        parts: dict[tuple[int, _Part], list[int]] = {
            owner: found.get(mark, []) for mark, owner in self._marks.items()
        }
        for index in places:
            front, answer, end, call = (
                parts.get((index, part), []) for part in ("front", "answer", "end", "call")
            )
            shows = bool(call) or (index, "call") not in parts
            start = front if len(front) == 1 else answer
            places[index] = Places(_only(start), _only(end), _only(call), shows)
        return places

    def _marked(self, index: int, message: Message, marks: Iterator[str]) -> Message:
        changed: dict[str, Any] = dict(message)
        content = content_of(message)
        end = len(content.rstrip())
        if end:
            places: list[tuple[int, _Part]] = [(min(_opened(content), end), "front")]
            closing = content.rfind(_CLOSE)
            if closing >= 0:
                answer = content[closing + len(_CLOSE) :]
                places.append((min(len(content) - len(answer.lstrip()), end), "answer"))
            places.append((end, "end"))
            changed["content"] = self._with_marks(index, content, places, marks)
        calls = message.get("tool_calls")
        if calls:
            changed["tool_calls"] = [*calls[:-1], self._marked_call(index, calls[-1], marks)]
        return changed

    def _with_marks(
        self, index: int, content: str, places: list[tuple[int, _Part]], marks: Iterator[str]
    ) -> str:
        pieces, last = [], 0
        for place, part in places:
            mark = next(marks)
            self._marks[mark] = (index, part)
            pieces += [content[last:place], mark]
            last = place
        return "".join([*pieces, content[last:]])

    def _marked_call(
        self, index: int, call: Mapping[str, Any], marks: Iterator[str]
    ) -> Mapping[str, Any]:
        function = call.get("function")
        if isinstance(function, dict):
            return {**call, "function": self._marked_call(index, function, marks)}
        if not isinstance(call.get("name"), str):
            return call
        mark = next(marks)
        self._marks[mark] = (index, "call")
        return {**call, "name": call["name"] + mark}


def _opened(content: str) -> int:
    """Return the place behind spaces and the opening `<think>` of a block that is closed."""
    found = (_OPEN if _CLOSE in content else _SPACES).match(content)
    return found.end() if found else 0


def _only(places: Sequence[int]) -> int | None:
    return places[0] if len(places) == 1 else None
