"""What a candidate is scored on: tasks with metric, weight and shots, under a named protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.noun import Noun
from core.protocols import PROTOCOLS, Protocol, ProtocolName

Metric = Literal["acc", "acc_norm"]

#: The metric each stock task is reported with; any other task uses `acc`.
DEFAULT_METRICS: dict[str, Metric] = {
    "arc_challenge": "acc_norm",
    "arc_easy": "acc_norm",
    "hellaswag": "acc_norm",
    "winogrande": "acc",
}


class TaskSpec(Noun):
    """One benchmark of an objective.

    `metric` defaults to the task's usual one (ARC and HellaSwag `acc_norm`, all others `acc`). `floor` is how many
    percentage points a winner may lose on this task against the best parent; None lets a gain elsewhere pay for it.
    """

    task: Annotated[str, Field(min_length=1, max_length=200)]
    metric: Metric | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    num_fewshot: Annotated[int, Field(ge=0, le=64)] = 0
    floor: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, exclude_if=lambda floor: floor is None)

    @property
    def metric_name(self) -> Metric:
        """The metric in force: the one asked for, else the task's default."""
        return self.metric or DEFAULT_METRICS.get(self.task, "acc")


class Objective(Noun):
    """The weighted mean over tasks that a search maximises.

    `tasks` may be left out where the protocol fixes them; where both are given, tasks, shots and metrics must agree.
    """

    tasks: Annotated[tuple[TaskSpec, ...], Field(max_length=32)] = ()
    protocol: ProtocolName = "search"

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("tasks"):
            protocol = PROTOCOLS.get(str(data.get("protocol", "search")))
            if protocol is not None and protocol.tasks and protocol.searchable:
                return {**data, "tasks": tuple(fixed.model_dump() for fixed in protocol.tasks)}
        return data

    @model_validator(mode="after")
    def _follows_its_protocol(self) -> Objective:
        rules = self.rules
        if not rules.searchable:
            raise ValueError(
                f"protocol {rules.name!r} has tasks that no search can follow: use 'open-llm-v1-core' for the search "
                f"and score the winner with `huarizo evaluate MODEL --protocol {rules.name}`"
            )
        if not self.tasks:
            raise ValueError("an objective needs at least one task: name it in `tasks`")
        if rules.tasks:
            wanted = {(fixed.task, fixed.num_fewshot, fixed.metric) for fixed in rules.tasks}
            given = {(spec.task, spec.num_fewshot, spec.metric_name) for spec in self.tasks}
            if wanted != given:
                raise ValueError(
                    f"protocol {rules.name!r} fixes (task, shots, metric) as {sorted(wanted)!r}, but the objective has "
                    f"{sorted(given)!r}: leave out `tasks`, or use protocol 'search'"
                )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Objective:
        names = [spec.task for spec in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each task may appear once, but {twice!r} appears more often: name it once")
        return self

    @property
    def rules(self) -> Protocol:
        """The protocol in force."""
        return PROTOCOLS[self.protocol]

    @property
    def shares(self) -> tuple[float, ...]:
        """Each task's part of the macro mean, in task order, summing to 1."""
        total = sum(spec.weight for spec in self.tasks)
        return tuple(spec.weight / total for spec in self.tasks)
