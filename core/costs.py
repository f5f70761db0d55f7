"""What things cost: an item, a build, a worker's memory, each from what was measured before, else from a table.

Arithmetic of scoring is 2 FLOP per weight and token (Kaplan et al., Scaling Laws for Neural Language Models, arXiv
2001.08361, section 2.1, without the attention's part, which is small at the lengths of benchmarks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import NamedTuple

from pydantic import Field

from core.devices import Speeds, speeds_of
from core.generators import Training
from core.jobs import SearchJob
from core.model import DTYPE_BYTES, Header
from core.noun import Noun
from core.objective import TaskSpec
from core.selectors import select
from core.space_spec import LayoutFamily, MergeFamily
from core.tasks import TaskContent

#: Bytes of one weight as candidates are held.
_HELD = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Search items, held-out items, characters of a prompt with one choice, choices: of well-known tasks that no worker
#: has read yet; published sizes of their evaluation splits, halved.
_USUAL: dict[str, tuple[int, int, float, float]] = {
    "arc_challenge": (586, 586, 160.0, 4.0),
    "arc_easy": (1188, 1188, 140.0, 4.0),
    "hellaswag": (5021, 5021, 300.0, 4.0),
    "winogrande": (633, 634, 105.0, 2.0),
}
_UNKNOWN = (500, 500, 250.0, 4.0)
#: Seconds of a training step beside its arithmetic, in the three courses.
_LAUNCHES = (0.003, 0.01, 0.03)
#: Characters of one token, in the three courses.
_CHARACTERS = (4.6, 4.0, 3.0)


class Range(NamedTuple):
    """Least, likely and most."""

    low: float
    likely: float
    high: float


class TaskSize(Noun):
    """A task as far as its cost goes.

    Attributes:
        search_items, heldout_items: on each side of the split.
        tokens: of one item with all its choices, examples included, in the three courses.
        known: whether a worker has read the task; else the figures are published sizes or a guess.
    """

    task: str
    search_items: int
    heldout_items: int
    tokens: Range
    known: bool


class Pace(Noun):
    """One step of an earlier job, as measured.

    Attributes:
        device: its name.
        items, seconds: scored, and the time of that, building not counted.
        build_seconds: of the candidate.
        parameters: weights of the candidate.
        tokens: of an item, as `TaskSize.tokens` likely.
    """

    device: str
    items: int
    seconds: float
    build_seconds: float
    parameters: int
    tokens: float


class Input(Noun):
    """A number that an estimate rests on, and where it comes from."""

    name: str
    value: float | str
    unit: str = ""
    source: str


class Memory(Noun):
    """Bytes that one worker needs at its peak, by what needs them."""

    parents: int
    candidate: int
    reuse: int
    working: int
    training: int = Field(default=0, exclude_if=lambda training: not training)

    @property
    def total(self) -> int:
        """All of it."""
        return self.parents + self.candidate + self.reuse + self.working + self.training


class Costs(NamedTuple):
    """What things cost in one course: seconds of an item, a build, before the first candidate, and of a training."""

    item: float
    build: float
    start: float
    training: float = 0.0


def task_size(spec: TaskSpec, content: TaskContent | None) -> TaskSize:
    """A task's cost from what a worker read of it, else from published sizes, else a guess."""
    if content is not None and content.mean_characters > 0:
        search = len(content.side("search"))
        sizes = search, content.documents - search, content.mean_characters, max(content.mean_choices, 1.0)
    else:
        sizes = _USUAL.get(spec.task, _UNKNOWN)
    items, heldout, characters, choices = sizes
    characters *= 1 + spec.num_fewshot
    # Choices share the beginning of their prompt: at best they cost little more than one, at worst each a whole one.
    shares = 1.1, 1.0 + 0.2 * (choices - 1), choices
    tokens = [characters / size * share for size, share in zip(_CHARACTERS, shares, strict=True)]
    return TaskSize(
        task=spec.task,
        search_items=items,
        heldout_items=heldout,
        tokens=Range(*tokens),
        known=content is not None and content.mean_characters > 0,
    )


def costs_of(
    job: SearchJob, headers: Mapping[str, Header], tasks: Sequence[TaskSize], device: str, paces: Sequence[Pace]
) -> tuple[list[Costs], list[Input]]:
    """Costs in the three courses, cheap first, and the inputs that explain them."""
    speeds, mine = speeds_of(device), [pace for pace in paces if pace.device == device]
    parameters = max(header.parameters for header in headers.values())
    items = sum(task.search_items for task in tasks)
    tokens = [
        math.fsum(task.tokens[course] * task.search_items for task in tasks) / max(items, 1) for course in range(3)
    ]
    moved = _moved_bytes(job, headers)
    inputs = [
        Input(name="tokens_per_item", value=round(tokens[1], 1), unit="tokens", source="mean over the search items"),
        Input(name="bytes_moved_per_build", value=moved, unit="bytes", source="sources read and one candidate written"),
    ]
    if mine:
        item, build, more = _observed(mine, parameters, tokens[1], moved)
    else:
        item, build, more = _tabled(speeds, parameters, tokens, moved)
    stored = sum(_stored_bytes(headers[model.name]) for model in job.models)
    starts = [5.0 + stored / 3e9, 20.0 + stored / 1e9, 120.0 + stored / 2e8]
    inputs += more
    inputs.append(
        Input(
            name="start", value=round(starts[1], 1), unit="s", source="reading the parents at 1 GB/s, preparing tasks"
        )
    )
    training, more = training_of(job, speeds)
    return [Costs(*found) for found in zip(item, build, starts, training, strict=True)], [*inputs, *more]


def training_of(job: SearchJob, speeds: Speeds) -> tuple[list[float], list[Input]]:
    """Seconds of the training of a search's own generator in the three courses; 0 without one.

    A step moves each weight of its two small networks through 6 FLOP per chunk of its batch, and launches what it
    launches, which mostly takes longer.
    """
    lesson = job.lesson
    if lesson is None:
        return [0.0] * 3, []
    own = lesson.settings
    flops = 6.0 * _network_weights(own) * own.batch
    found = [
        own.steps * (flops / fast + beside) for fast, beside in zip(reversed(speeds.flops), _LAUNCHES, strict=True)
    ]
    source = "the job's settings: chunks as long as they may be, and 3 to 30 ms of launches a step"
    return found, [
        Input(name="training_steps", value=own.steps, unit="steps", source="of the search's own generator"),
        Input(name="seconds_of_training", value=round(found[1], 1), unit="s", source=source),
    ]


def _network_weights(settings: Training) -> int:
    """Of an autoencoder and a denoiser together, about, where chunks are as long as they may be."""
    return 5 * settings.width * settings.chunk + (4 + 8 * settings.blocks) * settings.width**2


def _training_bytes(job: SearchJob, headers: Mapping[str, Header]) -> int:
    """What the training of a search's own generator holds at its peak; 0 without one.

    Of every source the values, and a mean and a deviation for each number of their codes, in float32; a byte for each
    value of whether it is shown; of the networks weights, gradients, two moments and an average.
    """
    lesson, family = job.lesson, job.sampled
    if lesson is None or family is None or family.own is None:
        return 0
    own, base = lesson.settings, headers[lesson.models[0]]
    shapes = base.shapes
    found = select(shapes, base.architecture, base.layers, own.selectors)
    by_rows = own.parameterisation == "gain"
    lengths = [shapes[target.name][0] if by_rows else math.prod(shapes[target.name]) for target in found]
    chunk = min(own.chunk, max(lengths))
    numbers = chunk if own.latent is None else min(own.latent, chunk)
    chunks = sum(-(-length // chunk) for length in lengths)
    sources = len(lesson.models) + (family.own.top if family.own.train_after else 0)
    return chunks * (sources * 4 * (chunk + 2 * numbers) + chunk) + 20 * _network_weights(own)


def _observed(
    paces: Sequence[Pace], parameters: int, tokens: float, moved: int
) -> tuple[list[float], list[float], list[Input]]:
    """Costs from steps of earlier jobs: the middle half of what they took, scaled by arithmetic."""
    per_flop = _quartiles([pace.seconds / pace.items / (pace.parameters * pace.tokens) for pace in paces])
    builds = _quartiles([pace.build_seconds / pace.parameters for pace in paces])
    said = f"{len(paces)} steps of earlier jobs on {paces[0].device}: median, and the middle half as the range"
    item = [value * parameters * tokens for value in per_flop]
    build = [value * parameters for value in builds]
    return (
        item,
        build,
        [
            Input(name="seconds_per_item", value=item[1], unit="s", source=f"{said}, scaled by weights x tokens"),
            Input(name="seconds_per_build", value=build[1], unit="s", source=f"{said}, scaled by weights"),
        ],
    )


def _tabled(
    speeds: Speeds, parameters: int, tokens: Sequence[float], moved: int
) -> tuple[list[float], list[float], list[Input]]:
    """Costs from the table of devices: fast first."""
    fast_first = [
        2.0 * parameters * amount / flops + overhead
        for amount, flops, overhead in zip(tokens, reversed(speeds.flops), reversed(speeds.overhead), strict=True)
    ]
    build = [moved / bandwidth + 0.01 for bandwidth in reversed(speeds.bandwidth)]
    source = f"nothing was measured on {speeds.name!r} yet: makers' figures and wide shares of them"
    return (
        fast_first,
        build,
        [
            Input(name="arithmetic", value=speeds.flops[1], unit="FLOP/s", source=source),
            Input(name="bandwidth", value=speeds.bandwidth[1], unit="bytes/s", source=source),
            Input(name="seconds_per_item", value=fast_first[1], unit="s", source="2 x weights x tokens / arithmetic"),
            Input(name="seconds_per_build", value=build[1], unit="s", source="bytes moved / bandwidth"),
        ],
    )


def _quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile; a single value is all three."""
    return list(quantiles(values, n=4, method="inclusive")) if len(values) > 1 else [values[0]] * 3


def _stored_bytes(header: Header) -> int:
    return sum(tensor.elements * DTYPE_BYTES.get(tensor.dtype, 4) for tensor in header.tensors)


def _moved_bytes(job: SearchJob, headers: Mapping[str, Header]) -> int:
    """Bytes that one build reads and writes, of the family that moves most."""
    written = max(header.parameters for header in headers.values()) * _HELD[job.export.save_dtype]
    read = max(_stored_bytes(header) for header in headers.values())
    for family in job.space.families:
        if isinstance(family, MergeFamily):
            names = {*(family.sources or headers), *({family.base} if family.base else ())}
            read = max(read, sum(_stored_bytes(headers[name]) for name in names if name in headers))
    return read + written


def memory_of(job: SearchJob, headers: Mapping[str, Header], device: str, reuse_bytes: int) -> Memory:
    """What one worker holds at its peak: the parents as they are stored, a candidate, and the logits of one pass.

    Where the search trains its own generator, what that holds beside them.

    Raises:
        SelectorError: a selector of that generator that finds nothing in its base.
    """
    largest = max(headers.values(), key=lambda header: header.parameters)
    held, on_cpu = _HELD[job.export.save_dtype], device.startswith("cpu")
    deeper = 2 if any(isinstance(family, LayoutFamily) for family in job.space.families) else 1
    # A CPU computes in float32 over a widened copy; a re-stacked candidate shares its parent's tensors.
    candidate = largest.parameters * (held + (4 * deeper if on_cpu and held != 4 else 0))
    logits = min(2**26, 4096 * max(largest.vocab_size, 1))
    return Memory(
        parents=sum(_stored_bytes(headers[model.name]) for model in job.models),
        candidate=candidate,
        reuse=reuse_bytes,
        working=logits * (held + 8),
        training=_training_bytes(job, headers),
    )
