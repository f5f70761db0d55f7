"""Every setting, with its documented default. Environment variables are `HUARIZO_` plus the upper-case name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import ServiceUnavailableError


class Settings(BaseSettings):
    """Settings of one process; read once at its start."""

    model_config = SettingsConfigDict(env_prefix="HUARIZO_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: str | None = Field(default=None, description="SQLAlchemy URL of Postgres; unset embeds a server.")
    broker_url: str | None = Field(default=None, description="URL of Redis or Valkey; unset embeds a server.")
    home: Path | None = Field(default=None, description="Data folder; unset is keyed by the checkout.")
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port of API and dashboard; 0 takes a free one.")
    api_url: str = Field(default="http://127.0.0.1:8000", description="Where the CLI finds the API.")
    datasets: Path | None = Field(
        default=None, description="Folder of stock task data, <name>/<split>.parquet; unset is the hub."
    )
    task_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders with lm-eval YAML tasks, separated by the path separator."
    )
    model_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders under which `local:` models may lie, separated by the path separator."
    )
    artifacts: Path | None = Field(
        default=None, description="Folder of exported checkpoints; unset is <home>/artifacts."
    )
    prepared: Path | None = Field(
        default=None, description="Folder of prepared tasks (prompts as tokens); unset is <home>/prepared."
    )
    hub_allow: str = Field(default=r"^[\w.-]+/[\w.-]+$", description="Pattern of hub ids that may be fetched.")
    device: str = Field(default="auto", description="Device of a device worker: auto, cpu, cuda or cuda:<n>.")
    threads: int = Field(default=0, ge=0, description="Threads of a CPU runner; 0 is the number of cores.")
    batch_tokens: int = Field(default=0, ge=0, description="Token budget of one forward pass; 0 finds one.")
    compile: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="When merge kernels are compiled: auto (in the background, where it pays), never or always.",
    )
    reuse_bytes: int = Field(
        default=1 << 30, ge=0, description="Memory for hidden states of layers that candidates share; 0 keeps none."
    )
    lease_seconds: float = Field(
        default=60.0, gt=0, description="A step without a heartbeat for so long is taken back."
    )
    ring_seconds: float = Field(default=30.0, gt=0, description="A queued step is rung again after so long.")
    reconcile_seconds: float = Field(default=5.0, gt=0, description="Period of the reconciler.")
    max_attempts: int = Field(default=2, ge=1, description="Tries of a step that fails by its own doing.")
    max_infra_restarts: int = Field(default=5, ge=1, description="Restarts of a step whose worker died.")
    step_timeout_seconds: float = Field(default=3600.0, gt=0, description="Longest time one step may run.")
    drain_seconds: float = Field(default=30.0, gt=0, description="Longest wait for running steps when stopping.")
    max_body_bytes: int = Field(default=1_000_000, gt=0, description="Largest request body.")
    page_size: int = Field(default=50, gt=0, le=200, description="Default page length of lists.")
    poll_seconds: float = Field(default=2.0, gt=0, description="Polling period of the dashboard.")
    log_level: str = Field(default="INFO", description="Log level of every process.")

    @field_validator("task_folders", "model_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    def artifact_root(self) -> Path:
        """The folder that holds all artifacts.

        Raises:
            ServiceUnavailableError: neither HUARIZO_ARTIFACTS nor HUARIZO_HOME is set.
        """
        if self.artifacts is not None:
            return self.artifacts
        if self.home is not None:
            return self.home / "artifacts"
        raise ServiceUnavailableError("artifacts need a folder, but none is configured: set HUARIZO_ARTIFACTS")

    def prepared_root(self) -> Path | None:
        """The folder that keeps prepared tasks; None keeps none."""
        return self.prepared or (None if self.home is None else self.home / "prepared")

    @classmethod
    def settings_names(cls) -> tuple[str, ...]:
        """Environment names of all settings, sorted."""
        return tuple(sorted(f"HUARIZO_{name.upper()}" for name in cls.model_fields))
