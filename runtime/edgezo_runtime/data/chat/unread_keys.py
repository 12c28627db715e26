"""Keys of messages, and tools, that a chat template does not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import Message, Tools
from edgezo_runtime.data.example_set import DataWarning
from edgezo_runtime.errors import DataError

_KNOWN = frozenset({"role", "content", "weight"})


class UnreadKeys:
    """Counts rows with keys that make no difference to their text."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._messages: dict[str, int] = {}
        self._tools = 0

    def look(self, messages: Sequence[Message], tools: Tools | None, text: str) -> None:
        """Render a conversation without each of its further keys, and compare the texts.

        Args:
            messages: the messages.
            tools: descriptions of tools.
            text: what they are rendered as.
        """
        if tools and self._renders(messages, None, text):
            self._tools += 1
        keys = dict.fromkeys(key for message in messages for key in message if key not in _KNOWN)
        for key in keys:
            without = [
                {name: value for name, value in message.items() if name != key}
                for message in messages
            ]
            if self._renders(without, tools, text):
                self._messages[key] = self._messages.get(key, 0) + 1

    def warnings(self) -> Iterator[DataWarning]:
        """One warning per key."""
        if self._tools:
            yield DataWarning(
                "unused-tools",
                f"{self._tools} rows have a field 'tools', which the chat template does not use",
                self._tools,
            )
        for key, rows in self._messages.items():
            yield DataWarning(
                "unused-message-key",
                f"{rows} rows have messages with '{key:.40}', which the chat template does not use",
                rows,
            )

    def _renders(self, messages: Sequence[Message], tools: Tools | None, text: str) -> bool:
        variants = [messages]
        if any(message["content"] is None for message in messages):
            variants.append(
                [{**message, "content": message["content"] or ""} for message in messages]
            )
        for given in variants:
            try:
                if self._template.render(given, "probe", tools=tools) == text:
                    return True
            except DataError:
                continue
        return False
