"""Formulas as C++: a formula is traced once, and every operation of it becomes one line of a loop over elements.

The lines do what the operations do, in their order and each rounded by itself, so the bytes are those of the formula.
Only what formulas are made of is known here: arithmetic, bits, limits and choices of float32 and int32; whatever else a
formula holds is refused, and it runs as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from merging.kernels import Block
from merging.variants import Variant

#: How numbers are stored, by dtype.
STORED = {
    torch.float32: "float",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.uint8: "uint8_t",
}
#: What is reckoned with, by dtype.
RECKONED = {torch.float32: "float", torch.int32: "int32_t", torch.bool: "bool"}
#: Operations by name, in C++, on operands of the kind of the result. Whole numbers wrap around (`-fwrapv`).
OPERATIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "std::fabs({0})",
    "ceil": "std::ceil({0})",
    "sign": "({kind})((0 < {0}) - ({0} < 0))",
    "clamp_min": "at_least({0}, {1})",
    "clamp_max": "at_most({0}, {1})",
    "clamp": "at_most(at_least({0}, {1}), {2})",
    "bitwise_and": "{0} & {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_not": "~{0}",
    # Nothing writes in place where these are read, so a copy is as good as the original.
    "detach_copy": "{0}",
    "clone": "{0}",
}
#: Those that only float32 has as they are written above.
FLOATING = frozenset(("div", "abs", "ceil"))
#: Those that truth values have.
LOGICAL = frozenset(("bitwise_and", "bitwise_xor", "bitwise_or", "detach_copy", "clone"))
#: Those by a literal number of bits.
SHIFTS = {
    "bitwise_right_shift": "{0} >> {1}",
    "__rshift__": "{0} >> {1}",
    "bitwise_left_shift": "{0} << {1}",
    "__lshift__": "{0} << {1}",
}
#: Those that compare operands of a common kind.
COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "==", "ne": "!="}
#: Elements that a formula is traced on.
TRACED = 8

SOURCE = """{prelude}
using Out = {out};

extern "C" int64_t kernel(void *const *tensors, const int64_t *strides, const float *numbers, const int32_t *words,
                          const int32_t *starts, int64_t start_stride, int64_t *taken, int64_t some, int64_t rows,
                          int64_t columns, int64_t past) {{
    constexpr int64_t tile = TILE / sizeof(Out);
    alignas(64) float found[tile];
    uint32_t unsound = 0;
    for (int64_t row, end; (row = take(taken, some)) < rows;) {{
        for (end = row + some < rows ? row + some : rows; row < end; ++row) {{
            Out *const out = static_cast<Out *>(tensors[0]) + row * strides[0];
{per_row}
            for (int64_t begin = 0; begin < columns; begin += tile) {{
                const int64_t count = columns - begin < tile ? columns - begin : tile;
{per_tile}
                for (int64_t i = 0; i < count; ++i) {{
{per_element}
                }}
                unsound |= finish(out + begin, found, count, past);
            }}
        }}
    }}
    settled(past);
    return unsound;
}}
"""


class UnknownOperationError(Exception):
    """A formula does what nobody has written down here in C++."""


def source_of(variant: Variant) -> str:
    """The C++ of a variant's kernel.

    Its function `kernel` takes the addresses of the result, the sources and the fields, their strides from row to row,
    numbers (rows, k + 1), words (rows, k), the index of every row's first element with its stride, where it is counted
    how many rows are taken, how many to take at once, rows, columns, and whether results go past the caches. All who
    call it with one count share the rows. It returns 0 if every result of the caller's rows is finite.

    Raises:
        UnknownOperationError: it cannot be written so.
    """
    traced = _traced(variant)
    rows, elements = _lines(traced)
    names = _read(variant)
    kinds = [*variant.dtypes, *(dtype for dtype, _, _ in variant.fields)]
    spread = [True] * len(variant.dtypes) + [columns for _, _, columns in variant.fields]
    types = [_stored(dtype) for dtype in kinds]
    per_row = [
        f"const {kind} *const row_{name} = static_cast<const {kind} *>(tensors[{place}]) + row * strides[{place}];"
        for place, (name, kind) in enumerate(zip(names, types, strict=True), 1)
    ]
    per_row += [
        f"const float number{k} = numbers[row * {variant.numbers + 1} + {k}];" for k in range(variant.numbers + 1)
    ]
    per_row += [f"const int32_t word{k} = words[row * {variant.words} + {k}];" for k in range(variant.words)]
    per_row += [
        f"const auto {name} = wide(*row_{name});" for name, along in zip(names, spread, strict=True) if not along
    ]
    per_row += ["const int32_t start = starts[row * start_stride];"] if variant.indexed else []
    along = [(name, kind) for name, kind, wide in zip(names, types, spread, strict=True) if wide]
    per_tile = [f"const {kind} *const at_{name} = row_{name} + begin;" for name, kind in along]
    per_tile += ["const int32_t first = start + (int32_t)begin;"] if variant.indexed else []
    loaded = [f"const auto {name} = wide(at_{name}[i]);" for name, _ in along]
    loaded += ["const int32_t index = first + (int32_t)i;"] if variant.indexed else []
    result = f"{_result(traced)} * number{variant.numbers}" if variant.scaled else _result(traced)
    return SOURCE.format(
        prelude=prelude(),
        out=_stored(variant.out),
        per_row=_indented(3, per_row + rows),
        per_tile=_indented(4, per_tile),
        per_element=_indented(5, [*loaded, *elements, f"found[i] = {result};"]),
    )


def prelude() -> str:
    """What is common to all of them."""
    return resources.files("merging").joinpath("elementwise.h").read_text()


def _traced(variant: Variant) -> GraphModule:
    """The operations of a formula, none of which writes in place."""
    count, base, flags = len(variant.dtypes), variant.base, dict(variant.flags)

    def formula(*given: Tensor) -> Tensor:
        rest = list(given)
        take: Callable[[int], list[Tensor]] = lambda number: [rest.pop(0) for _ in range(number)]  # noqa: E731
        sources, fields = take(count), take(len(variant.fields))
        numbers, words, index = take(variant.numbers), take(variant.words), rest[0] if variant.indexed else None
        anchor = None if base is None else sources.pop(base)
        stretch = torch.zeros((), dtype=torch.int32) if variant.indexed else None
        return variant.formula(Block(tuple(sources), anchor, tuple(fields), numbers, words, index, stretch), **flags)

    examples = [torch.zeros(TRACED) for _ in variant.dtypes]
    examples += [torch.zeros(TRACED, dtype=dtype) for dtype, _, _ in variant.fields]
    examples += [torch.zeros(()) for _ in range(variant.numbers)]
    examples += [torch.zeros((), dtype=torch.int32) for _ in range(variant.words)]
    examples += [torch.zeros(TRACED, dtype=torch.int32)] if variant.indexed else []
    graph: GraphModule = make_fx(functionalize(formula, remove="mutations_and_views"), tracing_mode="fake")(*examples)
    graph.graph.eliminate_dead_code()
    _name(graph, variant)
    return graph


def _name(graph: GraphModule, variant: Variant) -> None:
    """Inputs are called what they are called in the C++."""
    names = _read(variant)
    names += [f"number{place}" for place in range(variant.numbers)]
    names += [f"word{place}" for place in range(variant.words)]
    names += ["index"] if variant.indexed else []
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(inputs, names, strict=True):
        node.meta["called"] = name


def _read(variant: Variant) -> list[str]:
    """What sources and fields are called."""
    return [f"in{place}" for place in range(len(variant.dtypes) + len(variant.fields))]


def _lines(graph: GraphModule) -> tuple[list[str], list[str]]:
    """What is computed once per row, and what is for every element."""
    rows: list[str] = []
    elements: list[str] = []
    for node in graph.graph.nodes:
        if node.op == "call_function":
            (elements if node.meta["val"].dim() else rows).append(_line(node))
        elif node.op not in ("placeholder", "output"):
            raise UnknownOperationError(f"a formula holds a {node.op}")
    return rows, elements


def _line(node: Node) -> str:
    return f"const {_kind(_value(node))} {node.name} = {_expression(node)};"


def _expression(node: Node) -> str:
    """What an operation does, in C++; nothing is left to C++'s own conversions.

    Raises:
        UnknownOperationError: it is not among those that are known to do the same.
    """
    name, kind, given = _name_of(node), _kind(_value(node)), node.args
    if name == "view_copy" and len(given) == 2 and isinstance(given[1], torch.dtype):
        return f"bits<{kind}>({_operand(given[0], _own(given[0]))})"
    if name == "_to_copy":
        return _converted(given[0], kind)
    if name == "zeros":
        return f"({kind})0"
    if node.kwargs:
        raise UnknownOperationError(f"{name} with {sorted(node.kwargs)} is not known")
    if name in SHIFTS and kind == "int32_t" and isinstance(given[1], int) and 0 <= given[1] < 32:
        return SHIFTS[name].format(_operand(given[0], kind), given[1])
    if name in COMPARISONS:
        left, right = (_operand(each, _common(given)) for each in given)
        return f"{left} {COMPARISONS[name]} {right}"
    if name == "where" and len(given) == 3:
        return "{} ? {} : {}".format(_operand(given[0], "bool"), *(_operand(each, kind) for each in given[1:]))
    if name not in OPERATIONS or (name in FLOATING and kind != "float"):
        raise UnknownOperationError(f"{name} is not known")
    if kind == "bool" and name == "bitwise_not":
        return f"!{_operand(given[0], kind)}"
    if kind == "bool" and name not in LOGICAL:
        raise UnknownOperationError(f"{name} of truth values is not known")
    try:
        return OPERATIONS[name].format(*(_operand(each, kind) for each in given), kind=kind)
    except IndexError:
        raise UnknownOperationError(f"{name} of {len(given)} is not known") from None


def _converted(given: Any, kind: str) -> str:
    """A conversion that is asked for: between the kinds that are reckoned with, or from what is only stored."""
    before = RECKONED.get(_value(given).dtype)
    if before == "float" and kind == "int32_t":
        return f"whole({_called(given)})"
    if before == "float" and kind == "bool":
        raise UnknownOperationError("a truth value of a number is not known")
    return f"({kind}){_called(given)}"


def _operand(given: Any, kind: str) -> str:
    """An argument as a number of that kind, as torch promotes it.

    Raises:
        UnknownOperationError: torch would not, or it is no number.
    """
    if isinstance(given, Node):
        own = _own(given)
        if own == kind:
            return _called(given)
        if own == "float" or kind == "bool":
            raise UnknownOperationError(f"{own} as {kind} is not known")
        return f"({kind}){_called(given)}"
    if isinstance(given, int | float) and kind == "float":
        return _literal(float(given))
    if isinstance(given, int) and kind == "int32_t" and -(1 << 31) <= given < 1 << 31:
        return f"int32_t({int(given)}LL)"
    raise UnknownOperationError(f"{given!r} as {kind} is not known")


def _literal(number: float) -> str:
    """A number, rounded to float32."""
    rounded = float(torch.tensor(number, dtype=torch.float32))
    if math.isnan(rounded):
        return '__builtin_nanf("")'
    if math.isinf(rounded):
        return "__builtin_inff()" if rounded > 0 else "(-__builtin_inff())"
    return f"({rounded.hex()}f)"


def _common(given: Sequence[Any]) -> str:
    """The kind that two numbers are compared as."""
    left, right = (_value(each) if isinstance(each, Node) else each for each in given)
    dtype = torch.result_type(left, right)
    if dtype not in RECKONED:
        raise UnknownOperationError(f"{dtype} is not reckoned with")
    return RECKONED[dtype]


def _own(given: Any) -> str:
    return _kind(_value(given))


def _value(node: Any) -> Tensor:
    """What a node was when it was traced."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor):
        raise UnknownOperationError(f"{node} is no tensor")
    return value


def _name_of(node: Node) -> str:
    target: Any = node.target
    name: str = target.overloadpacket.__name__
    return name


def _called(node: Node) -> str:
    return str(node.meta.get("called", node.name))


def _result(graph: GraphModule) -> str:
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    (found,) = output.args
    assert isinstance(found, Node)
    return _called(found)


def _kind(value: Tensor) -> str:
    if value.dtype not in RECKONED:
        raise UnknownOperationError(f"{value.dtype} is not reckoned with")
    return RECKONED[value.dtype]


def _stored(dtype: torch.dtype) -> str:
    if dtype not in STORED:
        raise UnknownOperationError(f"{dtype} is not known")
    return STORED[dtype]


def _indented(depth: int, lines: Sequence[str]) -> str:
    return "\n".join("    " * depth + line for line in lines)
