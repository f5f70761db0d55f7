"""Codes of problems, explained."""

from __future__ import annotations

from fastapi import APIRouter

from api.answers import problems as documented
from api.errors import problems
from api.schemas.page import PageOut
from api.schemas.problem import ProblemInfo
from core.errors import NotFoundError

router = APIRouter(prefix="/v1/problems", tags=["problems"])


@router.get("")
def list_problems() -> PageOut[ProblemInfo]:
    """Every code that a problem may carry."""
    found = (ProblemInfo(code=code, status=status, title=title) for code, (status, title) in problems().items())
    return PageOut(items=tuple(found), next_cursor=None)


@router.get("/{code}", responses=documented(404))
def get_problem(code: str) -> ProblemInfo:
    """One code."""
    if code not in problems():
        raise NotFoundError(f"no problem has the code {code!r}: list /v1/problems", where="code")
    status, title = problems()[code]
    return ProblemInfo(code=code, status=status, title=title)
