"""The service's generators of weights, by digest: looked up when a candidate first asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from core.errors import MissingGeneratorError
from core.settings import Settings
from store import generators
from store.session import Database


class KeptGenerators(Mapping[str, Path]):
    """Folders of the artifacts, as `merging.generation.opened.Generators` takes them.

    Args:
        database: which knows them.
        settings: which say where artifacts lie.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._found: dict[str, Path] = {}

    def __getitem__(self, digest: str) -> Path:
        if digest not in self._found:
            try:
                with self._database.reading() as session:
                    record = generators.named(session, digest)
            except MissingGeneratorError as error:
                raise KeyError(digest) from error
            self._found[digest] = self._settings.artifact_root() / record.path
        return self._found[digest]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
