"""The tag `{% generation %}`: marks what the assistant writes, where a template has it."""

from __future__ import annotations

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

GENERATION_BEGINS, GENERATION_ENDS = "edgezo begins", "edgezo ends"
"""Filters that write the marks. Templates cannot name them, because of the space."""


class GenerationTag(Extension):
    """Puts a mark before and behind the content of `{% generation %}` ... `{% endgeneration %}`.

    The marks are texts that the environment chooses for each rendering, empty by default.
    """

    tags: set[str] = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the content between its marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [_mark(GENERATION_BEGINS, line), *body, _mark(GENERATION_ENDS, line)]


def _mark(name: str, line: int) -> nodes.Node:
    empty = nodes.Const("", lineno=line)
    return nodes.Output([nodes.Filter(empty, name, [], [], None, None, lineno=line)], lineno=line)
