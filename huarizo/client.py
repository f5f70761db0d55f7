"""The HTTP client of the `/v1` API.

    with Client("http://127.0.0.1:8000") as client:
        job = client.submit(json.loads(Path("job.json").read_text()))
        print(client.job(job["id"])["state"])

Answers are the API's JSON, as plain dictionaries. Refusals are `ApiProblem`s; a service that cannot be reached is a
`ServiceUnavailableError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from core.errors import ServiceUnavailableError, TruncatedCheckpointError

Json = dict[str, Any]
PAGE = 200
#: Statuses of a proxy or a service on its way up or down: the same request may succeed a little later.
PASSING_STATUSES = frozenset({429, 502, 503, 504})


class ApiProblem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """A request the API refused (RFC 9457).

    Attributes:
        status: the HTTP status.
        code: the stable error code, see `core.errors`; `http_<status>` where the answer was no problem document.
        title, detail: what went wrong, in general and here.
        where: the field or tensor that is to blame, if one is known.
        errors: every field that breaks a rule, as (where, message), if there are several.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        where: str | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.where = where
        self.errors = tuple(errors)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in PASSING_STATUSES

    @classmethod
    def of(cls, answer: httpx.Response) -> ApiProblem:
        """Read a refusal; answers of a proxy, which are no problem documents, are understood as well."""
        fallback = f"http_{answer.status_code}"
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            text = " ".join(answer.text.split())[:200]
            return cls(answer.status_code, fallback, answer.reason_phrase or fallback, text)
        where = body.get("where")
        errors = [error for error in body.get("errors") or () if isinstance(error, dict)]
        return cls(
            answer.status_code,
            str(body.get("code") or fallback),
            str(body.get("title") or answer.reason_phrase or fallback),
            str(body.get("detail") or ""),
            None if where is None else str(where),
            [(str(error.get("where") or ""), str(error.get("message") or "")) for error in errors],
        )


class Client:
    """One connection to one service.

    Every method raises ApiProblem (refused) or ServiceUnavailableError (not reached).

    Args:
        base_url: scheme, host and port, without `/v1`.
        timeout: seconds one request may take.
        transport: what carries the requests, for tests.
    """

    def __init__(self, base_url: str, timeout: float = 30.0, *, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"accept": "application/json, application/problem+json", "user-agent": "huarizo"}
        # A proxy configured for the world outside must not see requests to a service on this machine.
        self._http = httpx.Client(
            base_url=self.base_url, timeout=timeout, headers=headers, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # -- jobs ---------------------------------------------------------------------------------------------------

    def submit(self, job: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        """Post a job; with a key, the same job posted twice is one job."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._json("POST", "/v1/jobs", json=dict(job), headers=headers)

    def estimate(self, job: Mapping[str, Any], *, device: str | None = None, workers: int | None = None) -> Json:
        """What a job will cost; nothing is posted."""
        wanted = {"device": device, "workers": workers}
        params = {name: value for name, value in wanted.items() if value is not None}
        return self._json("POST", "/v1/jobs:estimate", json=dict(job), params=params)

    def job(self, job_id: str) -> Json:
        """A job with its progress."""
        return self._json("GET", f"/v1/jobs/{_segment(job_id)}")

    def jobs(self, *, limit: int = 50, state: str | None = None) -> list[Json]:
        """The newest jobs, at most `limit` of them."""
        return self._list("/v1/jobs", limit, {"state": state})

    def trials(self, job_id: str, *, limit: int | None = None, order: str = "number") -> list[Json]:
        """A job's trials, by `number` or best `score` first; all of them where `limit` is None."""
        return self._list(f"/v1/jobs/{_segment(job_id)}/trials", limit, {"order": order})

    def events(self, job_id: str, *, after: int = 0) -> list[Json]:
        """What happened to a job since event `after`, oldest first."""
        return _items(self._json("GET", f"/v1/jobs/{_segment(job_id)}/events", params={"after": after}))

    def cancel(self, job_id: str) -> Json:
        """Cancel a job; cancelling twice is once."""
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:cancel")

    def pause(self, job_id: str) -> Json:
        """Let running trials end and start no more."""
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:pause")

    def resume(self, job_id: str) -> Json:
        """Go on with a paused job."""
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:resume")

    def extend(self, job_id: str, budget: Mapping[str, Any]) -> Json:
        """Raise limits of a search that has not ended, each to a new total."""
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:extend", json={"budget": dict(budget)})

    def clone(
        self,
        job_id: str,
        changes: Mapping[str, Any] | None = None,
        *,
        warm_start: bool = False,
        idempotency_key: str | None = None,
    ) -> Json:
        """Post a job's request again, changed by a merge patch; warm, it begins with the job's candidates."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        wanted = {"changes": dict(changes or {}), "warm_start": warm_start}
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:clone", json=wanted, headers=headers)

    def explain(self, job_id: str) -> Json:
        """Ask for an explanation of what a search found out; the step that writes it."""
        return self._json("POST", f"/v1/jobs/{_segment(job_id)}:explain")

    def explanation(self, job_id: str) -> Json:
        """The newest explanation of a job."""
        return self._json("GET", f"/v1/jobs/{_segment(job_id)}/explanation")

    def report(self, job_id: str) -> str:
        """A job as one self-contained page of HTML."""
        return self._answer("GET", f"/v1/jobs/{_segment(job_id)}/report", headers={"accept": "text/html"}).text

    # -- trials and artifacts -----------------------------------------------------------------------------------

    def trial(self, trial_id: str) -> Json:
        """A trial."""
        return self._json("GET", f"/v1/trials/{_segment(trial_id)}")

    def export_trial(self, trial_id: str, spec: Mapping[str, Any] | None = None) -> Json:
        """Ask for a trial's checkpoint; the step that writes it."""
        return self._json("POST", f"/v1/trials/{_segment(trial_id)}:export", json=dict(spec or {}))

    def step(self, step_id: str) -> Json:
        """A step, with its failure if it failed."""
        return self._json("GET", f"/v1/steps/{_segment(step_id)}")

    def artifact(self, artifact_id: str) -> Json:
        """An artifact with its files."""
        return self._json("GET", f"/v1/artifacts/{_segment(artifact_id)}")

    def artifacts(self, *, limit: int = 50) -> list[Json]:
        """The newest artifacts."""
        return self._list("/v1/artifacts", limit, {})

    def delete_artifact(self, artifact_id: str) -> None:
        """Delete an artifact with its files."""
        self._answer("DELETE", f"/v1/artifacts/{_segment(artifact_id)}")

    def download(
        self, artifact_id: str, name: str, target: Path, *, seen: Callable[[int], None] = lambda _count: None
    ) -> str:
        """Write one file of an artifact to `target` and return the sha256 of what was written.

        `seen` is called with the number of bytes of each piece.

        Raises:
            TruncatedCheckpointError: the answer ended before it was complete.
        """
        digest = hashlib.sha256()
        address = f"/v1/artifacts/{_segment(artifact_id)}/files/{quote(name, safe='/')}"
        try:
            with self._http.stream("GET", address) as answer, target.open("wb") as file:
                if not answer.is_success:
                    answer.read()
                    raise ApiProblem.of(answer)
                for piece in answer.iter_bytes(1 << 20):
                    digest.update(piece)
                    file.write(piece)
                    seen(len(piece))
        except httpx.RemoteProtocolError as error:
            raise TruncatedCheckpointError(
                f"{name!r} of {artifact_id!r} came only in part ({error}): download it again"
            ) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return digest.hexdigest()

    # -- everything else ----------------------------------------------------------------------------------------

    def register_model(self, name: str, ref: str) -> Json:
        """Register a model under a name."""
        return self._json("POST", "/v1/models", json={"name": name, "ref": ref})

    def models(self, *, limit: int = 50) -> list[Json]:
        """The newest registered models."""
        return self._list("/v1/models", limit, {})

    def resolve_recipe(self, request: Mapping[str, Any]) -> Json:
        """What a recipe gives every tensor."""
        return self._json("POST", "/v1/recipes:resolve", json=dict(request))

    def catalog(self) -> Json:
        """Methods, layouts, strategies, protocols and tasks."""
        return self._json("GET", "/v1/catalog")

    def health(self) -> Json:
        """Whether the process answers."""
        return self._json("GET", "/healthz")

    def ready(self) -> Json:
        """Whether the service can work; an ApiProblem of status 503 says what is missing."""
        return self._json("GET", "/readyz")

    def _list(self, path: str, limit: int | None, params: Mapping[str, Any]) -> list[Json]:
        """Follow cursors until `limit` items are there or no more exist."""
        return list(self._pages(path, limit, params))

    def _pages(self, path: str, limit: int | None, params: Mapping[str, Any]) -> Iterator[Json]:
        cursor, left = None, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            wanted = {**params, "limit": size, "cursor": cursor}
            page = self._json("GET", path, params={name: value for name, value in wanted.items() if value is not None})
            items = _items(page)
            yield from items if left is None else items[:left]
            left = None if left is None else left - len(items)
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise ApiProblem.of(answer)
        return answer

    def _json(self, method: str, path: str, **options: Any) -> Json:
        answer = self._answer(method, path, **options)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ServiceUnavailableError(
                f"{self.base_url!r} does not answer like Huarizo ({path} is no JSON object): set HUARIZO_API_URL"
            )
        return body

    def _unreachable(self, error: httpx.TransportError) -> ServiceUnavailableError:
        if isinstance(error, httpx.ConnectError):
            return ServiceUnavailableError(
                f"no service answers at {self.base_url!r}: start one with `huarizo up`, or set HUARIZO_API_URL"
            )
        reason = str(error) or type(error).__name__
        return ServiceUnavailableError(
            f"{self.base_url!r} did not answer ({reason}): see `huarizo doctor`, then repeat"
        )


def _segment(identity: str) -> str:
    return quote(identity, safe="")


def _items(page: Json) -> list[Json]:
    items = page.get("items")
    return items if isinstance(items, list) else []
