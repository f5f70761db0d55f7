"""The race among the parents: those that are told apart from the best of them are read no further. Pure.

Candidates must beat the best parent, so it has to be found, and that alone: the others are models that the user has
already. After every rung all parents that are left are compared on the same items with the leader, and whoever is
significantly behind it is out. Two that are as good as one another stay until all search items are read; so a parent
that is out was, with the error that the proof allows itself, not the best one.

That is Hoeffding racing (Maron & Moore, Advances in Neural Information Processing Systems 6, 1994) with the paired
normal bound of `core.statistics` in place of Hoeffding's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.outcomes import Outcomes
from core.statistics import ALPHA, macro_difference, paired_difference


def leader_of(answers: Mapping[str, Sequence[Outcomes]], shares: Sequence[float]) -> str:
    """The parent with the highest macro on the items that all have read; among equals the first."""
    return max(answers, key=lambda name: _macro(answers[name], shares))


def told_apart(answers: Mapping[str, Sequence[Outcomes]], shares: Sequence[float]) -> set[str]:
    """The parents that are significantly worse than the leader.

    Args:
        answers: by parent, in the job's order, its outcomes task by task, on items that all of them have read.
        shares: each task's part of the macro mean, summing to 1.

    Raises:
        ValueError: there is no parent, or they have no items in common.
    """
    leader = leader_of(answers, shares)
    behind = set()
    for name, own in answers.items():
        pairs = [paired_difference(mine, theirs) for mine, theirs in zip(own, answers[leader], strict=True)]
        if name != leader and macro_difference(pairs, shares).p_worse <= ALPHA:
            behind.add(name)
    return behind


def _macro(answers: Sequence[Outcomes], shares: Sequence[float]) -> float:
    return sum(share * sum(have.correct) / len(have.correct) for share, have in zip(shares, answers, strict=True))
