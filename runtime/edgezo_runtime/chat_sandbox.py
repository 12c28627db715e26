"""Jinja for chat templates of strangers: no attributes beyond data, and an end to work and text.

jinja2's sandbox keeps templates away from what Python objects hide. It does not keep them from
`{{ 'x' * 10 ** 12 }}` or from loops in loops. Here every turn of a loop, call and filter is counted
against an allowance, and so is every character that is made, before it is made.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 300_000
"""Turns of loops, calls and filters of one rendering."""

MOST_CHARACTERS = 64 << 20
"""Characters that one rendering may make, besides `_OWN_SHARE` times those it is given."""

MOST_SECONDS = 10.0

_OWN_SHARE = 32
_WIDEST = 1000
_MOST_BITS = 4096
_WIDTHS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice"})
"""Methods of text and filters whose numbers say how much they make."""

_WIDE_FORMAT = re.compile(r"[0-9]{4}|\*|\{[^{}]*\{")


class Allowance:
    """What a rendering may still do. One at a time."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, given: int) -> None:
        """A rendering begins, of so many characters."""
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS + _OWN_SHARE * given
        self._end = time.monotonic() + MOST_SECONDS

    @property
    def left(self) -> int:
        """Characters."""
        return self._characters

    def step(self) -> None:
        """A turn, a call or a filter.

        Raises:
            SecurityError: there were too many, or it took too long.
        """
        self._steps -= 1
        if self._steps < 0:
            raise SecurityError(f"it takes more than {MOST_STEPS} steps")
        if time.monotonic() > self._end:
            raise SecurityError(f"it takes more than {MOST_SECONDS:g} seconds")

    def make(self, characters: float) -> None:
        """So many characters, or items of a list, are about to be made.

        Raises:
            SecurityError: they are too many.
        """
        self._characters -= math.ceil(characters)
        if self._characters < 0:
            raise SecurityError("it makes too much text")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. `allowance.begin` comes before every rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.allowance = Allowance()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, GenerationTag],
            finalize=self._put_out,
        )
        del self.globals["lipsum"]
        self.filters = {name: self._guarded(name, made) for name, made in self.filters.items()}
        self.filters[_COUNTED] = self._counted
        self.filters[_JOINED] = self._joined

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter, guarded like the others."""
        self.filters[name] = self._guarded(name, function)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call something on behalf of a template; see the base class."""
        self.allowance.step()
        if isinstance(obj, LoopContext) and args:
            args = (self._counted(args[0]), *args[1:])
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            self._check_text(name, owner, args, kwargs)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate on behalf of a template; see the base class."""
        self.allowance.step()
        if operator == "%" and isinstance(left, str):
            self._check_format(left, right)
        elif operator == "+" and isinstance(left, str | list | tuple):
            self.allowance.make(_size(left) + _size(right))
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "**" and not (_bits(left) * _magnitude(right) <= _MOST_BITS):
            raise SecurityError("a power that is too large")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The method `format` of a text, or None for anything else; see the base class."""
        made = super().wrap_str_format(value)
        if made is None:
            return None
        wrapped = made

        def checked(*args: Any, **kwargs: Any) -> str:
            self._check_format(value.__self__, [*args, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return checked

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Count turns of loops and joined text; the base class calls this its hook."""
        changed = _Counting().visit(source)
        changed.set_environment(self)
        return super()._generate(changed, *args, **kwargs)

    def _put_out(self, value: Any) -> Any:
        """What is about to become text of the result."""
        self.allowance.make(_weight(value, self.allowance))
        return value

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a loop."""
        for value in values:
            self.allowance.step()
            yield value

    def _joined(self, values: list[Any]) -> str:
        """What `~` makes."""
        texts = []
        for value in values:
            self.allowance.make(_weight(value, self.allowance))
            texts.append(str(value))
        return "".join(texts)

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that asks the allowance first."""
        given = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.allowance.step()
            value, *rest = args[given:]
            if name in ("string", "join", "tojson", "pprint", "format", "xmlattr", "urlencode"):
                self.allowance.make(_weight(value, self.allowance))
            if isinstance(value, str):
                self._check_text(name, value, tuple(rest), kwargs)
            elif name == "join":
                between = _size(kwargs.get("d", rest[0] if rest else ""))
                self.allowance.make(between * (_size(value) or MOST_STEPS))
            elif name in _WIDTHS:
                self._check_widths(rest, kwargs)
            return function(*args, **kwargs)

        return guarded

    def _check_text(
        self, name: str, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Whether a method of text, or a filter on it, makes too much."""
        if name in _WIDTHS:
            self._check_widths(args, kwargs)
            lines = text.count("\n") + 1
            self.allowance.make(len(text) + lines * sum(map(_size, args)) + lines * _WIDEST)
        elif name == "replace" and len(args) > 1:
            old, new = (str(part) for part in args[:2])
            self.allowance.make(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
        elif name in ("format", "format_map"):
            self._check_format(text, [*args, *kwargs.values()])
        elif name == "join" and args:
            values = list(args[0]) if not isinstance(args[0], str) else args[0]
            self.allowance.make(_weight(values, self.allowance) + len(text) * len(values))
        elif name in ("translate", "wordwrap"):
            self.allowance.make(
                len(text) * (1 + _weight([*args, *kwargs.values()], self.allowance))
            )
        else:
            self.allowance.make(len(text))

    def _check_widths(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int | float) and not abs(value) <= _WIDEST:
                raise SecurityError(f"a width of {value!r:.20}, at most {_WIDEST} is allowed")

    def _check_format(self, form: str, values: Any) -> None:
        if _WIDE_FORMAT.search(form):
            raise SecurityError(f"a format with a width like that: {form[:40]!r}")
        places = form.count("%") + form.count("{")
        self.allowance.make(len(form) + places * (_weight(values, self.allowance) + _WIDEST))

    def _check_product(self, left: Any, right: Any) -> None:
        if isinstance(left, int):
            left, right = right, left
        if isinstance(left, str | list | tuple | bytes):
            if isinstance(right, int):
                self.allowance.make(len(left) * max(right, 0))
        elif _bits(left) + _bits(right) > _MOST_BITS:
            raise SecurityError("a product that is too large")


class GenerationTag(Extension):
    """Reads `{% generation %}` ... `{% endgeneration %}` as its content."""

    tags: set[str] = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_COUNTED, _JOINED = "edgezo counted", "edgezo joined"  # no template can spell these


class _Counting(NodeTransformer):
    """Lets loops and `~` go through filters of the environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        values = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(values, _JOINED, [], [], None, None, lineno=node.lineno)


def _size(value: Any) -> int:
    """Characters, or items; 1 of what has none."""
    return len(value) if isinstance(value, str | list | tuple | dict | bytes) else 1


def _weight(value: Any, allowance: Allowance) -> int:
    """Characters that a value takes as text, roughly, whatever it holds."""
    if isinstance(value, str):
        return len(value)
    weight, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, str | bytes):
            weight += len(item) + 2
        elif isinstance(item, dict):
            left += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            left += item
        weight += 16
        if weight > allowance.left:
            break
    return weight


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _magnitude(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else 0
