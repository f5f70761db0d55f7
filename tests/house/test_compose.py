"""docker-compose.yml, checked without a Docker engine: its commands, settings, health checks and references hold."""

import re
from pathlib import Path

import pytest
import yaml

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("migrate", "api", "control", "inspect", "gpu", "cpu")


def test_the_services_of_the_house_are_there():
    assert set(SERVICES) == {"postgres", "redis", *OURS}
    assert SERVICES["redis"]["image"] == "redis:8"


@pytest.mark.parametrize("name", OURS)
def test_every_environment_variable_is_a_setting(name):
    names = [key for key in SERVICES[name]["environment"] if key.startswith("HUARIZO_")]
    assert {"HUARIZO_DATABASE_URL", "HUARIZO_BROKER_URL"} <= set(names)
    assert set(names) <= set(Settings.settings_names())


@pytest.mark.parametrize("name", ["control", "inspect", "cpu"])
def test_every_worker_command_is_one_that_the_command_line_takes(name):
    from huarizo.service.commands import worker_command

    verb, *options = SERVICES[name]["command"]
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    assert verb == "worker"
    command = worker_command(chosen["--role"], chosen.get("--device", "auto"))
    assert "celery" in command.argv


def test_the_gpu_worker_reserves_its_device():
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["device_ids"] == ["0"] and "gpu" in device["capabilities"]
    assert SERVICES["gpu"]["command"][-2:] == ["--device", "cuda:0"]


def test_servers_and_api_are_watched_and_waited_for():
    for name in ("postgres", "redis", "api"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    for name in OURS[1:]:
        needs = SERVICES[name]["depends_on"]
        assert needs["postgres"]["condition"] == needs["redis"]["condition"] == "service_healthy"
        assert needs["migrate"]["condition"] == "service_completed_successfully"


def test_volumes_are_declared_and_ports_stay_on_loopback():
    named = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if re.match(r"[a-z]+:", v)}
    assert named == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_images_do_not_run_as_root_and_hold_every_package():
    recipe = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.search(r"^USER huarizo$", recipe, re.MULTILINE)
    for package in ("api", "core", "evaluation", "huarizo", "merging", "migrations", "search", "store", "workers"):
        assert f"COPY {package} {package}" in recipe


def test_the_ways_to_start_it_name_a_profile_that_has_a_worker():
    text = (ROOT / "docker-compose.yml").read_text()
    named = re.findall(r"docker compose --profile (\w+) up", text)
    assert set(named) == {"gpu", "cpu"}
    for profile in named:
        assert any(profile in service.get("profiles", []) for service in SERVICES.values())


def test_folders_that_settings_name_inside_a_container_are_mounted_there():
    mounted = {
        volume.rsplit(":", 2)[-2] if volume.endswith(":ro") else volume.rsplit(":", 1)[-1]
        for volume in SERVICES["cpu"]["volumes"]
    }
    environment = SERVICES["cpu"]["environment"]
    for setting in ("HUARIZO_DATASETS", "HUARIZO_TASK_FOLDERS"):
        (folder,) = re.findall(r"/var/lib/huarizo/\w+", environment[setting])
        assert folder in mounted
