"""The assistant's turns in a rendered conversation, from the prompt of each to its end mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.marked_turns import MarkedTurns, Places
from edgezo_runtime.data.chat.marks import take_out, unused_marks
from edgezo_runtime.data.chat.messages import Message, Tools, assistant_turns, content_of
from edgezo_runtime.data.chat.turn_end import find_turn_end
from edgezo_runtime.data.tokenizer import AddedTokens, TextTokenizer
from edgezo_runtime.errors import DataError

_CLOSING_TAG = re.compile(r"</(\w+)>")
Render = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the assistant in a text.

    Attributes:
        message: index of its message.
        start: its first character: the first one behind the prompt.
        end: position behind its last character, that of its end mark if there is one.
        ended: True if there is an end mark.
        prompted: True if the text before it is what the model reads before it answers, and where
            nothing comes before it.
    """

    message: int
    start: int
    end: int
    ended: bool
    prompted: bool = True


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as text.

    Attributes:
        text: special tokens included.
        turns: the assistant's, in their order.
        ends_openly: True if nothing but spaces follows a last turn without an end mark.
    """

    text: str
    turns: tuple[Turn, ...]
    ends_openly: bool


class TurnFinder:
    """Renders conversations and finds the assistant's turns in them, from renderings only.

    Where the template marks what the assistant writes (`{% generation %}`), a turn is what it
    marks. Elsewhere a turn begins behind the generation prompt, if the conversation up to there is
    how the text begins. If it is not, because the template opens a block that it closes in finished
    turns, or renders earlier turns anew, the turn begins where its content does; marks in the
    content show where that is. A turn ends with the first end mark behind its content or its calls.
    What cannot be found in this way is refused.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Compile the chat template, and find how it ends turns.

        Raises:
            BundleError: there is no template, or it is not valid Jinja.
        """
        self.template = ChatTemplate(tokenizer)
        self.added = AddedTokens(tokenizer)
        self.turn_end = find_turn_end(self.template, tokenizer, self.added)

    def find(self, messages: Sequence[Message], tools: Tools | None, where: str) -> RenderedChat:
        """Render a conversation and find its turns.

        Args:
            messages: messages that `check_messages` returns.
            tools: descriptions of tools for the template.
            where: file and line, for the message.

        Raises:
            DataError: the template refuses the conversation, or the place of a turn is uncertain.
        """
        render = partial(self.template.render, where=where, tools=tools)
        messages = self.template.with_contents(messages, where, tools=tools)
        search = _Search(self, messages, render, where)
        turns = tuple(search.generated() or search.turns())
        last = turns[-1]
        openly = not last.ended and not search.text[last.end :].strip()
        return RenderedChat(search.text, turns, openly)

    def end_at(self, text: str, start: int) -> tuple[int, bool]:
        """Find the end mark that follows a position, maybe behind spaces.

        Returns:
            The position behind it and True; or the position itself and False.
        """
        begin = start + len(text[start:]) - len(text[start:].lstrip())
        closing = self.turn_end.closing.lstrip()
        if closing and text.startswith(closing, begin):
            return begin + len(closing), True
        found = self.added.at(text, begin)
        return (start, False) if found is None else (found.end, True)


class _Search:
    """The search for the turns of one conversation."""

    def __init__(
        self, finder: TurnFinder, messages: Sequence[Message], render: Render, where: str
    ) -> None:
        self.finder = finder
        self.messages = messages
        self.render = render
        self.where = where
        self.text = render(messages)
        self.indices = assistant_turns(messages)

    # --- where the template marks what the assistant writes ---

    def generated(self) -> list[Turn]:
        """Return what the template marks; nothing if it marks nothing."""
        if not self.finder.template.marks_generation:
            return []
        spans = self._marked_spans(self.messages)
        if not spans:
            return []
        owners = self._owners(len(spans))
        turns: list[Turn] = []
        for number, ((start, end), owner) in enumerate(zip(spans, owners, strict=True)):
            if start == end:
                continue
            ended = self.finder.added.ends(self.text[start:end].rstrip())
            if not ended and owners[number + 1 : number + 2] != [owner]:
                end, ended = self.finder.end_at(self.text, end)
            prompt = self._prompt(owner)
            again = bool(turns and turns[-1].message == owner)
            prompted = prompt in (None, self.text[:start]) or again
            turns.append(Turn(owner, start, end, ended, prompted))
        return turns

    def _marked_spans(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        begins, ends = marks = tuple(islice(self._marks(), 2))
        text, found = take_out(self.render(messages, marks=marks), marks)
        spans = list(zip(found.get(begins, []), found.get(ends, []), strict=False))
        return spans if messages is not self.messages or text == self.text else []

    def _owners(self, count: int) -> list[int]:
        """Return the message of each of the marked spans."""
        if count == len(self.indices):
            return self.indices
        owners: list[int] = []
        for index in self.indices:
            found = len(self._marked_spans(list(self.messages[: index + 1])))
            owners += [index] * (found - len(owners))
        if len(owners) != count:
            raise self._uncertain(self.indices[-1], "it marks other parts once messages follow")
        return owners

    # --- where it does not ---

    def turns(self) -> Iterator[Turn]:
        """Find the turns by generation prompts and marks in the messages."""
        places = self._places()
        cursor = 0
        for index in self.indices:
            turn = self._turn(index, places.get(index))
            if turn.start < cursor:
                raise self._uncertain(index, "it begins before the turn ahead of it ends")
            cursor = turn.end
            yield turn

    def _places(self) -> dict[int, Places]:
        """Find all contents with one rendering, or each alone if that changes the text."""
        found = self._marked(self.messages, self.indices, self.text)
        if found is not None:
            return found
        alone = [self._marked(self.messages, [index], self.text) for index in self.indices]
        return {index: place for one in alone if one for index, place in one.items()}

    def _marked(
        self, messages: Sequence[Message], indices: Sequence[int], plain: str
    ) -> dict[int, Places] | None:
        marked = MarkedTurns(messages, indices, self._marks())
        try:
            return marked.places(self.render(marked.messages), plain)
        except DataError:
            return None

    def _marks(self) -> Iterator[str]:
        return unused_marks([self.text, self.finder.template.source])

    def _turn(self, index: int, places: Places | None) -> Turn:
        message = self.messages[index]
        has_content = bool(content_of(message).strip())
        if places and has_content and places.end is None:
            raise self._uncertain(index, "it leaves out the content, or repeats it")
        calls = bool(message.get("tool_calls"))
        if places and calls and not places.shows_calls:
            if not has_content:
                raise self._uncertain(index, "it does not show the tool calls")
            calls = False
        start, prompted = self._start(index, places)
        if calls:
            end, ended = self._end_of_calls(index, start, places)
        elif places and places.end is not None:
            end, ended = self.finder.end_at(self.text, places.end)
        else:
            end, ended = self._end_of_prefix(index, start)
        if end <= start:
            raise self._uncertain(index, "it shows nothing of the message")
        return Turn(index, start, end, ended, prompted)

    def _start(self, index: int, places: Places | None) -> tuple[int, bool]:
        """Return where a turn begins, and whether the text before it is the generation prompt."""
        before = self._prompt(index)
        shown = places.start if places else None
        prefixed = before is not None and self.text.startswith(before)
        if before is not None and prefixed:
            if shown is None:
                return len(before), True
            if len(before) <= shown and not _closes(before, self.text[len(before) : shown]):
                return len(before), True
        start = shown if shown is not None else self._header(index)
        if start is None:
            raise self._uncertain(index, "its beginning is not the generation prompt")
        return start, index == 0

    def _prompt(self, index: int) -> str | None:
        """Render what the model reads before a turn; None if there is nothing, or an error."""
        if index == 0:
            return None
        try:
            return self.render(self.messages[:index], generation_prompt=True)
        except DataError:  # some templates want the last message to be the user's
            return None

    def _header(self, index: int) -> int | None:
        """Return where the content of a message would begin that has only tool calls."""
        if content_of(self.messages[index]).strip():
            return None
        mark = next(self._marks())
        replaced = [*self.messages]
        replaced[index] = {"role": "assistant", "content": mark}
        try:
            before, found, _ = self.render(replaced).partition(mark)
        except DataError:
            return None
        return len(before) if found and self.text.startswith(before) else None

    def _end_of_calls(self, index: int, start: int, places: Places | None) -> tuple[int, bool]:
        """Find the end of a turn with tool calls.

        What follows the last function's name is taken from the conversation up to this turn, and
        must follow the name in the whole conversation as well.
        """
        if places is None or places.call is None:
            return self._end_of_prefix(index, start)
        messages = list(self.messages[: index + 1])
        through = self.render(messages)
        marked = self._marked(messages, [index], through)
        if marked is None or marked[index].call is None:
            return self._end_of_prefix(index, start)
        rest = through[marked[index].call :]
        tail = self.finder.turn_end.tail
        if tail and rest.endswith(tail):
            rest = rest.removesuffix(tail)
            if self.text.startswith(rest, places.call):
                return self.finder.end_at(self.text, places.call + len(rest))
        rest = rest.rstrip()
        if not self.text.startswith(rest, places.call):
            raise self._uncertain(index, "its tool calls change once messages follow")
        end = places.call + len(rest)
        return (end, True) if self.finder.added.ends(rest) else self.finder.end_at(self.text, end)

    def _end_of_prefix(self, index: int, start: int) -> tuple[int, bool]:
        """Find the end of a turn where the conversation up to it is how the text begins."""
        through = self.render(self.messages[: index + 1])
        bare = through.rstrip()
        answer = content_of(self.messages[index]).rpartition("</think>")[2].strip()
        if not self.text.startswith(bare) or answer not in bare[start:]:
            raise self._uncertain(index, "it changes the content")
        tail = self.finder.turn_end.tail
        if tail and through.endswith(tail):
            return self.finder.end_at(self.text, len(through) - len(tail))
        if self.finder.added.ends(bare):
            return len(bare), True
        return self.finder.end_at(self.text, len(bare))

    def _uncertain(self, index: int, why: str) -> DataError:
        return DataError(
            f"{self.where}: the chat template does not show message {index + 1} (assistant) so "
            f"that its place is certain: {why}; give the row as 'prompt' and 'completion'"
        )


def _closes(prompt: str, gap: str) -> bool:
    """Tell whether the gap before a content only closes the block that the prompt opens."""
    tag = _CLOSING_TAG.fullmatch(gap.strip())
    return tag is not None and prompt.rstrip().endswith(f"<{tag.group(1)}>")
