"""Formulas as C++: a formula is traced once, and every operation of it becomes one line of a loop over elements.

The lines do what the operations do, in their order and each rounded by itself, so the bytes are those of the formula.
Only what formulas are made of is known here: arithmetic, bits, limits and choices of float32 and int32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    torch.float16: "_Float16",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.uint8: "uint8_t",
}
#: What is reckoned with, by dtype.
RECKONED = {torch.float32: "float", torch.int32: "int32_t", torch.bool: "bool"}
#: Operations by name, in C++. Whole numbers wrap around (`-fwrapv`), and limits let NaN through, as torch's do.
OPERATIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "std::fabs({0})",
    "ceil": "std::ceil({0})",
    "sign": "({kind})((0 < {0}) - ({0} < 0))",
    "clamp_min": "{0} < {1} ? ({kind}){1} : {0}",
    "clamp_max": "{0} > {1} ? ({kind}){1} : {0}",
    "bitwise_and": "{0} & {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_not": "~{0}",
    "bitwise_right_shift": "{0} >> {1}",
    "__rshift__": "{0} >> {1}",
    "bitwise_left_shift": "{0} << {1}",
    "__lshift__": "{0} << {1}",
    "where": "{0} ? {1} : {2}",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "le": "{0} <= {1}",
    "lt": "{0} < {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "_to_copy": "({kind}){0}",
    "zeros": "0",
    "detach_copy": "{0}",
    "detach": "{0}",
    "alias": "{0}",
}
#: Elements that a formula is traced on.
TRACED = 8

SOURCE = """{prelude}
using Out = {out};

extern "C" int64_t kernel(void *const *tensors, const int64_t *strides, const float *numbers, const int32_t *words,
                          const int32_t *starts, int64_t start_stride, int64_t top, int64_t end, int64_t columns,
                          int64_t past) {{
    constexpr int64_t tile = TILE / sizeof(Out);
    alignas(64) Out found[tile];
    uint32_t unsound = 0;
    for (int64_t row = top; row < end; ++row) {{
        Out *const out = static_cast<Out *>(tensors[0]) + row * strides[0];
{per_row}
        for (int64_t begin = 0; begin < columns; begin += tile) {{
            const int64_t count = columns - begin < tile ? columns - begin : tile;
{per_tile}
            for (int64_t i = 0; i < count; ++i) {{
{per_element}
            }}
            put(out + begin, found, count * sizeof(Out), past);
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
    numbers (rows, k + 1), words (rows, k), the index of every row's first element with its stride, the first row, the
    row after the last, columns, and whether results go past the caches. It returns 0 if every result is finite.

    Raises:
        UnknownOperationError: it cannot be written so.
    """
    traced = _traced(variant)
    rows, elements = _lines(traced)
    names = [f"in{place}" for place in range(len(variant.dtypes) + len(variant.fields))]
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
    written = [f"found[i] = Written<Out>::of({result});", "unsound |= Written<Out>::unsound(found[i]);"]
    return SOURCE.format(
        prelude=prelude(),
        out=_stored(variant.out),
        per_row=_indented(2, per_row + rows),
        per_tile=_indented(3, per_tile),
        per_element=_indented(4, loaded + elements + written),
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
    examples += [torch.zeros(TRACED, dtype=_reckoned(dtype)) for dtype, _, _ in variant.fields]
    examples += [torch.zeros(()) for _ in range(variant.numbers)]
    examples += [torch.zeros((), dtype=torch.int32) for _ in range(variant.words)]
    examples += [torch.zeros(TRACED, dtype=torch.int32)] if variant.indexed else []
    graph: GraphModule = make_fx(functionalize(formula, remove="mutations_and_views"), tracing_mode="fake")(*examples)
    for node in list(graph.graph.nodes):
        # A formula may write into fields that are its own here, for they were widened; nobody reads them afterwards.
        if node.target is torch.ops.aten.copy_.default and node.args[0].op == "placeholder":
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    _name(graph, variant)
    return graph


def _name(graph: GraphModule, variant: Variant) -> None:
    """Inputs are called what they are called in the C++."""
    names = [f"in{place}" for place in range(len(variant.dtypes) + len(variant.fields))]
    names += [f"number{place}" for place in range(variant.numbers)]
    names += [f"word{place}" for place in range(variant.words)]
    names += ["index"] if variant.indexed else []
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(inputs, names, strict=True):
        node.meta["called"] = name


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
    target: Any = node.target
    name, kind = target.overloadpacket.__name__, _kind(node.meta["val"])
    if set(node.kwargs) - {"dtype", "layout", "device", "pin_memory", "non_blocking"}:
        raise UnknownOperationError(f"{name} with {sorted(node.kwargs)}")
    parts = list(_operands(node))
    if name == "view_copy" and target._overloadname == "dtype":
        return f"const {kind} {node.name} = bits<{kind}>({parts[0]});"
    if name == "clamp":
        name, parts = _limits(parts)
    if name not in OPERATIONS:
        raise UnknownOperationError(f"{name} is not known")
    if name == "div" and any(each.meta["val"].dtype != torch.float32 for each in node.args if isinstance(each, Node)):
        raise UnknownOperationError("a division of whole numbers")
    return f"const {kind} {node.name} = {OPERATIONS[name].format(*parts, kind=kind)};"


def _limits(parts: Sequence[str]) -> tuple[str, list[str]]:
    """A clamp with both limits, as the upper limit of what the lower one leaves."""
    value, low, high = parts
    return "clamp_max", [f"({OPERATIONS['clamp_min'].format(value, low, kind='float')})", high]


def _operands(node: Node) -> Iterator[str]:
    """The arguments of an operation; numbers are of the kind of what they are reckoned with."""
    if node.target is torch.ops.aten.view_copy.dtype or _name_of(node) in ("zeros", "_to_copy"):
        yield from [_called(each) for each in node.args[:1] if isinstance(each, Node)]
        return
    given = [each.meta["val"].dtype for each in node.args if isinstance(each, Node)]
    floating = any(dtype.is_floating_point for dtype in given)
    for each in node.args:
        if isinstance(each, Node):
            yield _called(each)
        elif isinstance(each, bool | int | float):
            yield float(each).hex() + "f" if floating else f"{int(each)}"
        else:
            raise UnknownOperationError(f"{_name_of(node)} of {each!r}")


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


def _reckoned(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else torch.int32


def _indented(depth: int, lines: Sequence[str]) -> str:
    return "\n".join("    " * depth + line for line in lines)
