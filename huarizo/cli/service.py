"""`huarizo up`, `worker`, `migrate`: the verbs that run the service itself."""

from __future__ import annotations

import os
from typing import NoReturn

from core.errors import ServiceUnavailableError
from core.settings import Settings
from huarizo.cli.console import print_json, remark, say
from huarizo.service import up
from huarizo.service.address import server_urls
from huarizo.service.commands import worker_command
from huarizo.service.devices import Device
from huarizo.service.places import CODE, Places, code_environment


def run_up() -> None:
    """Run a service in the foreground; what it does goes to stderr, where to look to stdout."""
    up.up(Settings(), report=remark, ready=_announce)


def become_worker(role: str, device: str | None) -> NoReturn:
    """Replace this process by a worker.

    Raises:
        InvalidInputError: an unknown role or device.
        ServiceUnavailableError: no database or broker is known.
    """
    settings = Settings()
    database_url, broker_url = server_urls(settings)
    if broker_url is None:
        raise ServiceUnavailableError("a worker listens to a broker, but none is known: set HUARIZO_BROKER_URL")
    command = worker_command(role, device or settings.device, log_level=settings.log_level)
    os.environ.update(code_environment())
    os.environ.update(Places.of(settings).environment())
    os.environ.update(command.environment)
    os.environ.update(HUARIZO_DATABASE_URL=database_url, HUARIZO_BROKER_URL=broker_url)
    os.chdir(CODE)
    os.execv(command.argv[0], command.argv)


def run_migrations(*, check: bool, as_json: bool) -> int:
    """Bring the schema to head, or only say whether it is there; the exit code.

    Raises:
        ServiceUnavailableError: no database is known, or it does not answer.
    """
    import migrations

    url, _ = server_urls(Settings())
    before, head = migrations.current(url), migrations.head()
    if not check:
        migrations.upgrade(url)
    after = before if check else migrations.current(url)
    if as_json:
        print_json({"before": before, "after": after, "head": head})
    elif after != head:
        remark(f"the schema is at {before or 'nothing'}, the newest is {head}: run `huarizo migrate`")
    else:
        say(f"schema at {after}" if before == after else f"schema brought from {before or 'nothing'} to {after}")
    return 0 if after == head else 1


def _announce(url: str, places: Places, devices: tuple[Device, ...]) -> None:
    lines = {
        "dashboard": url,
        "API": f"{url}/v1",
        "devices": ", ".join(f"{device.name} ({device.label})" for device in devices),
        "models": str(places.model_roots[0]),
        "data": str(places.home),
        "logs": str(places.logs),
    }
    for name, value in lines.items():
        say(f"{name:<10} {value}")
    remark("ready; Ctrl-C stops it")
