"""Questions on a terminal; where nobody can answer, the proposals are taken."""

from __future__ import annotations

from dataclasses import dataclass

import click

from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Questions:
    """Asks for settings.

    Attributes:
        ask: is there somebody who answers?
    """

    ask: bool

    def text(self, question: str, given: str | None, proposed: str | None, flag: str) -> str:
        """A setting: given, answered, or proposed.

        Args:
            question: in words.
            given: by a flag; None if it was not.
            proposed: answer that is taken for an empty line; None if there is none.
            flag: for the message.
        Raises:
            UsageError: nobody answers, and nothing is proposed.
        """
        if given is not None:
            return given
        if self.ask:
            shown = None if proposed is None else quoted(proposed)
            answer = click.prompt(question, default=shown, err=True, type=str)
            return unquoted(str(answer))
        if proposed is None:
            raise UsageError(f"{flag}: nobody answers, and nothing is proposed; give {flag}")
        return proposed

    def texts(self, question: str, given: tuple[str, ...], proposed: tuple[str, ...]) -> list[str]:
        """A list of texts, separated by commas in the answer; an empty line takes the proposal.

        Raises:
            UsageError: the answer has another number of texts than the proposal.
        """
        if given:
            return list(given)
        if not self.ask:
            return list(proposed)
        shown = quoted(",".join(proposed))
        answer = str(click.prompt(question, default=shown, err=True, type=str))
        if answer == shown:  # texts may have commas of their own
            return list(proposed)
        found = [part for part in unquoted(answer).split(",") if part.strip()]
        if len(found) != len(proposed):
            raise UsageError(
                f"{question}: {len(found)} texts, expected {len(proposed)}; separate them by "
                f"commas, or give each as an option"
            )
        return found


def quoted(text: str) -> str:
    """A text with its line ends as backslash n, in quotes so that its spaces can be seen."""
    return f'"{text}"'.replace("\n", "\\n")


def unquoted(text: str) -> str:
    """The reverse; a text without quotes is taken as it is, but for its line ends."""
    inside = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    return inside.replace("\\n", "\n")
