"""A Jinja sandbox for untrusted chat templates: access to data only, limited work and text.

jinja2's sandbox hides the internals of Python objects from templates. It does not stop
`{{ 'x' * 10 ** 12 }}` or nested loops. So this sandbox counts every loop iteration, call and filter
against an allowance, and every character before it is made. Templates may call the methods and
filters in `costs`, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer

from edgezo_runtime.data.chat.allowance import ITEM, Allowance, size
from edgezo_runtime.data.chat.costs import FILTERS, METHODS, format_cost, swell
from edgezo_runtime.data.chat.generation_tag import (
    GENERATION_BEGINS,
    GENERATION_ENDS,
    GenerationTag,
)

_MOST_BITS = 4096
_MOST_NODES = 20_000
_MOST_BRANCHES = 500
_DEEPEST = 150

_COMPILERS = frozenset({"_loop_vars", "_block_vars"})
"""Arguments that jinja2 itself adds to calls within loops and blocks."""

_CALLED = (Macro, LoopContext, BlockReference, Joiner, Undefined)
_OWNERS = (LoopContext, Cycler)


@dataclass(frozen=True, slots=True, eq=False)
class _Format:
    """The method `format` of a text, counted against the allowance before it runs."""

    allowance: Allowance
    form: str
    function: Callable[..., str]

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        values = [*args, *kwargs.values()]
        self.allowance.make(format_cost(self.allowance, self.form, values))
        return self.function(*args, **kwargs)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. Call `allowance.begin` before every rendering.

    Attributes:
        allowance: what the rendering may still do.
        marks: texts before and behind what a template marks as the assistant's.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.allowance = Allowance()
        self.marks = ("", "")
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            # Work done while the template is compiled would not be counted.
            optimized=False,
            extensions=[loopcontrols, GenerationTag],
            finalize=self._count_output,
        )
        del self.globals["lipsum"]
        self.filters = {name: self._guarded(name, made) for name, made in self.filters.items()}
        self.filters |= {
            _COUNTED: self._count_iterations,
            _JOINED: self._joined,
            _BUILT: self._built,
            _SLICED: self._sliced,
            _COMPARED: self._compared,
            GENERATION_BEGINS: pass_context(lambda _, __: self.marks[0]),
            GENERATION_ENDS: pass_context(lambda _, __: self.marks[1]),
        }
        self.tests = {
            name: self._guarded_test(cast(Callable[..., Any], made))
            for name, made in self.tests.items()
        }

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter, guarded like the others."""
        self.filters[name] = self._guarded(name, function)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a filter by its name, as `map` does; see the base class."""
        if name in _OWN:
            raise SecurityError(f"no filter named {name!r}")
        return super().call_filter(name, *args, **kwargs)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on behalf of a template; see the base class."""
        self.allowance.step()
        if isinstance(getattr(obj, "__self__", None), str):
            args = tuple(map(self.allowance.taken, args))
        self.allowance.make(sum(map(self.allowance.held, (*args, *kwargs.values()))))
        own = {key: value for key, value in kwargs.items() if key not in _COMPILERS}
        self._check_callable(obj, args, own)
        if isinstance(obj, LoopContext) and args:
            args = (self._count_iterations(context, args[0]), *args[1:])
        return super().call(context, obj, *args, **kwargs)

    def _check_callable(self, obj: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Refuse functions that templates must not call, and count the cost of the others."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        for kind, costs in METHODS.items():
            if isinstance(owner, kind) and name in costs:
                self.allowance.make(costs[name](self.allowance, owner, *args, **kwargs))
                return
        known = isinstance(obj, (*_CALLED, _Format)) or isinstance(owner, _OWNERS)
        if not known and not any(obj is function for function in self.globals.values()):
            what = f"{type(owner).__name__}.{name}" if name else type(obj).__name__
            raise SecurityError(f"templates do not call {what[:80]}")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item; see the base class."""
        if isinstance(argument, tuple):  # tuples are hashed
            self.allowance.make(self.allowance.held(argument))
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator; see the base class."""
        if operator == "%" and isinstance(left, str):
            self.allowance.make(format_cost(self.allowance, left, right))
        elif operator == "+" and isinstance(left, str | list | tuple):
            each = swell(left, right) if isinstance(left, str) else ITEM
            self.allowance.make(each * (size(left) + size(right)))
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "**" and not (_bits(left) * _magnitude(right) <= _MOST_BITS):
            raise SecurityError("a power that is too large")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The method `format` of a text, or None for anything else; see the base class."""
        made = super().wrap_str_format(value)
        return None if made is None else _Format(self.allowance, value.__self__, made)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile a template with counting filters; the base class documents this hook."""
        _check_shape(source)
        changed = _Counting().visit(source)
        changed.set_environment(self)
        return super()._generate(changed, *args, **kwargs)

    @pass_context
    def _count_output(self, _: Any, value: Any) -> Any:
        """Count a value that becomes part of the output."""
        self.allowance.make(self.allowance.text(value))
        return value

    @pass_context
    def _count_iterations(self, _: Any, values: Iterable[Any]) -> Iterator[Any]:
        """Count the iterations of a loop."""
        for value in values:
            self.allowance.step()
            yield value

    @pass_context
    def _joined(self, _: Any, values: list[Any]) -> str:
        """Join the operands of `~`."""
        texts = []
        for value in values:
            self.allowance.make(self.allowance.text(value))
            texts.append(str(value))
        return "".join(texts)

    @pass_context
    def _built(self, _: Any, value: Any) -> Any:
        """Count a new list, tuple or dict: it may contain one value many times."""
        self.allowance.make(self.allowance.held(value))
        return value

    @pass_context
    def _sliced(self, _: Any, value: Any) -> Any:
        """Count a new slice; it is no larger than the value it is taken from."""
        self.allowance.make(size(value) * (1 if isinstance(value, str) else ITEM))
        return value

    @pass_context
    def _compared(self, _: Any, value: Any) -> Any:
        """Count a value before it is compared."""
        self.allowance.make(self.allowance.held(value))
        return value

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a filter so that it is counted before it runs and does all its work at once."""
        given = getattr(function, "jinja_pass_arg", None)
        cost = FILTERS.get(name)

        @pass_context
        def guarded(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            self.allowance.step()
            if cost is None:
                raise SecurityError(f"templates do not use the filter {name!r}")
            if name != "string":  # the text of a range is short
                value = self.allowance.taken(value)
            self.allowance.make(cost(self.allowance, value, *args, **kwargs))
            own = {None: (), "context": (context,), "eval_context": (context.eval_ctx,)}.get(
                given and given.name, (self,)
            )
            made = function(*own, value, *args, **kwargs)
            if isinstance(made, Iterator):
                return iter(list(self.allowance.counted(made)))
            return made

        return guarded

    def _guarded_test(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a test so that it is counted before it runs."""

        @wraps(function)
        def guarded(*args: Any) -> Any:
            self.allowance.make(sum(map(self.allowance.held, args)))
            return function(*args)

        return guarded

    def _check_product(self, left: Any, right: Any) -> None:
        if isinstance(left, int):
            left, right = right, left
        if isinstance(left, str | list | tuple):
            if isinstance(right, int):
                each = 1 if isinstance(left, str) else ITEM
                self.allowance.make(each * len(left) * max(right, 0))
        elif _bits(left) + _bits(right) > _MOST_BITS:
            raise SecurityError("a product that is too large")


_COUNTED, _JOINED, _BUILT = "edgezo counted", "edgezo joined", "edgezo built"
_SLICED, _COMPARED = "edgezo sliced", "edgezo compared"
_OWN = frozenset(
    {_COUNTED, _JOINED, _BUILT, _SLICED, _COMPARED, GENERATION_BEGINS, GENERATION_ENDS}
)
"""Filters that `_Counting` and `GenerationTag` insert. Their names contain a space, so templates
can name them only in strings, and `call_filter` refuses those."""


class _Counting(NodeTransformer):
    """Inserts counting filters where a template makes values or iterates over them."""

    def visit_For(self, node: nodes.For) -> Any:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> Any:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_TemplateData(self, node: nodes.TemplateData) -> Any:
        """Turn plain text into a constant, so that it is counted as output."""
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> Any:
        self.generic_visit(node)
        return _filtered(node, _BUILT)

    def visit_Dict(self, node: nodes.Dict) -> Any:
        self.generic_visit(node)
        return _filtered(node, _BUILT)

    def visit_Tuple(self, node: nodes.Tuple) -> Any:
        self.generic_visit(node)
        return _filtered(node, _BUILT) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        self.generic_visit(node)
        return _filtered(node, _SLICED) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> Any:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, _COMPARED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, _COMPARED)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        raise SecurityError("templates do not use {% autoescape %}")


def _filtered(node: Any, name: str) -> Any:
    """Pass the value of a node through a filter, unless it is a constant."""
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _check_shape(template: nodes.Template) -> None:
    """Refuse templates that exceed the limits of Python's compiler, which raises MemoryError.

    Raises:
        SecurityError: the template has too many parts, branches or levels.
    """
    left: list[tuple[nodes.Node, int]] = [(template, 0)]
    parts = 0
    while left:
        node, depth = left.pop()
        parts += 1
        if parts > _MOST_NODES:
            raise SecurityError(f"it has more than {_MOST_NODES} parts")
        if depth > _DEEPEST:
            raise SecurityError(f"line {node.lineno}: more than {_DEEPEST} levels")
        if isinstance(node, nodes.If) and len(node.elif_) > _MOST_BRANCHES:
            raise SecurityError(f"line {node.lineno}: more than {_MOST_BRANCHES} branches")
        left += [(child, depth + 1) for child in node.iter_child_nodes()]


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _magnitude(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else 0
