from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from api.errors import PROTOCOL, STATUS, error_classes, problems, status_of
from api.routes import health
from core import errors
from core.settings import Settings
from store.session import Database
from tests.api.conftest import serving

#: Written out: a new class of failure needs a decision here and in `api.errors.STATUS`.
EXPECTED = {
    "HuarizoError": 500,
    "InvalidInputError": 422,
    "UnknownNameError": 422,
    "UnknownMethodError": 422,
    "UnknownTaskError": 422,
    "UnknownModelError": 422,
    "UnknownLayoutError": 422,
    "UnknownStrategyError": 422,
    "RecipeError": 422,
    "MergekitError": 422,
    "LayoutError": 422,
    "SpaceError": 422,
    "RadiusLostError": 422,
    "BudgetError": 422,
    "TooLargeError": 413,
    "ParentsDoNotFitError": 422,
    "CheckpointError": 422,
    "MissingCheckpointError": 422,
    "TruncatedCheckpointError": 422,
    "NonFiniteCheckpointError": 422,
    "PickleCheckpointError": 422,
    "QuantisedCheckpointError": 422,
    "PathNotAllowedError": 422,
    "SelectorError": 422,
    "GeneratorError": 422,
    "MissingGeneratorError": 422,
    "GeneratorMisfitError": 422,
    "TrainingDivergedError": 422,
    "TaskError": 422,
    "TrialError": 500,
    "SampleError": 500,
    "SampleNormError": 500,
    "SamplePeakError": 500,
    "SampleUnchangedError": 500,
    "SamplePerplexityError": 500,
    "NonFiniteWeightsError": 500,
    "OutOfMemoryError": 500,
    "TrialTimeoutError": 500,
    "OutcomeConflictError": 409,
    "NotFoundError": 404,
    "ConflictError": 409,
    "DiskFullError": 507,
    "LeaseLostError": 409,
    "CancelledError": 409,
    "EmbeddedServerError": 503,
    "ServiceUnavailableError": 503,
}
CLASSES = [kind for kind in error_classes() if kind.__module__ == errors.__name__]


def test_every_class_of_failure_has_been_given_a_status():
    assert {kind.__name__ for kind in CLASSES} == set(EXPECTED)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_has_its_status_and_no_two_classes_share_a_code(kind):
    assert status_of(kind) == EXPECTED[kind.__name__]
    assert [other for other in CLASSES if other.code == kind.code] == [kind]


def test_a_class_directly_under_the_root_is_listed_and_not_left_to_the_root():
    assert {kind for kind in CLASSES if errors.HuarizoError in kind.__bases__} <= set(STATUS)


@pytest.fixture(scope="module")
def failing() -> dict[str, Exception]:
    return {kind.__name__: kind("rule, 'value': way out", where="field.name") for kind in CLASSES}


def test_each_class_becomes_a_problem_over_the_wire(failing, monkeypatch, settings: Settings):
    """Every class in turn is raised by a route of a running service."""

    def alive() -> None:
        raise current[0]

    current: list[Exception] = []
    monkeypatch.setattr(health, "alive", alive)
    app = FastAPI()
    app.add_api_route("/raise", lambda: alive())
    monkeypatch.setattr("api.app.ROUTERS", (app.router,))
    with serving(settings, Database("postgresql+psycopg://nowhere")) as address:
        for name, error in failing.items():
            current[:] = [error]
            answer = httpx.get(f"{address}/raise", trust_env=False)
            assert answer.status_code == EXPECTED[name], name
            assert answer.headers["content-type"] == "application/problem+json"
            found = answer.json()
            assert (found["code"], found["detail"], found["where"]) == (
                error.code,
                "rule, 'value': way out",
                "field.name",
            )
            assert found["type"] == f"/v1/problems/{error.code}"
            assert found["status"] == answer.status_code
            assert found["title"]
            assert found["request_id"] == answer.headers["x-request-id"]


def test_what_nobody_named_is_internal_and_shows_no_traceback(monkeypatch, settings: Settings):
    app = FastAPI()
    app.add_api_route("/raise", lambda: 1 / 0)
    monkeypatch.setattr("api.app.ROUTERS", (app.router,))
    with serving(settings, Database("postgresql+psycopg://nowhere")) as address:
        answer = httpx.get(f"{address}/raise", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-security-policy"]
    for hint in ("Traceback", "ZeroDivision", ".py", "division"):
        assert hint not in answer.text


def test_unknown_addresses_and_methods_are_problems_too(bare: httpx.Client):
    for answer, status, code in (
        (bare.get("/v1/nothing/here"), 404, "not_found"),
        (bare.put("/v1/jobs", json={}), 405, "method_not_allowed"),
        (bare.get("/static/../app.py"), 404, "not_found"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_browser_is_shown_a_page_and_a_program_a_problem(bare: httpx.Client):
    page = bare.get("/nowhere/<script>", headers={"accept": "text/html,*/*"})
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "/<script>" not in page.text and "/nowhere/&lt;script&gt;" in page.text
    assert bare.get("/nowhere").json()["code"] == "not_found"
    away = bare.get("/", headers={"accept": "text/html"})
    assert away.status_code == 503 and "does not answer" in away.text


def test_a_database_that_is_away_is_a_problem_that_says_when_to_come_back(bare: httpx.Client):
    answer = bare.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_every_code_is_explained_at_the_address_its_problems_name(bare: httpx.Client):
    listed = {item["code"]: item for item in bare.get("/v1/problems").json()["items"]}
    assert listed.keys() == problems().keys() >= {kind.code for kind in CLASSES} | PROTOCOL.keys()
    one = bare.get("/v1/problems/parents_do_not_fit").json()
    assert one == {"code": "parents_do_not_fit", "status": 422, "title": "Parents whose headers cannot be combined"}
    assert bare.get("/v1/problems/none").status_code == 404
