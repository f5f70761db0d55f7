"""The workbench of a runner: what is loaded once and kept from candidate to candidate."""

from __future__ import annotations

import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import torch

from core.adapters import Adapter, adapter_digest, parts_of, read_adapter
from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError, ServiceUnavailableError
from core.model import Model
from core.recipe import ResolvedRecipe
from core.records import Device, JobRecord
from core.settings import Settings
from evaluation.cache import PlanCache
from evaluation.catalog import TaskFolders
from evaluation.encoding import config_length, with_defaults
from evaluation.prepare import Prepared, prepare
from evaluation.reuse import HiddenStore
from evaluation.scorer import Scorer
from merging.adapters import open_parents
from merging.compiled import Compiler
from merging.resident import Resident
from merging.sources import Parents
from merging.tokenizer_files import copy_tokenizer
from store.session import Database
from workers.parents import job_models
from workers.places import link_roots, model_folder
from workers.runner.generators import KeptGenerators

log = logging.getLogger(__name__)

#: Prepared objectives kept: parents of one job may have tokenizers that differ in more than names.
KEPT_PREPARED = 4


class Bench:
    """Device, database, resident parents and prepared tasks of one runner process.

    Args:
        settings: of this process.
        owner: the name under which the runner claims steps.
    """

    def __init__(self, settings: Settings, *, owner: str) -> None:
        if settings.database_url is None:
            raise ServiceUnavailableError("a runner needs HUARIZO_DATABASE_URL: start it with `huarizo worker`")
        self.settings = settings
        self.owner = owner
        if settings.home is not None:
            # Where torch's compiler keeps its kernels from one start to the next; it looks when one is first needed.
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.home / "kernels"))
        self.database = Database(settings.database_url, settings.broker_url)
        self.prefer_job: str | None = None
        self._loaded: tuple[frozenset[tuple[str, str]], Parents, Resident] | None = None
        self._prepared: OrderedDict[tuple[object, ...], tuple[Prepared, dict[torch.dtype, Scorer]]] = OrderedDict()
        self._hidden = HiddenStore(settings.reuse_bytes)
        #: Perplexities of what samples lie around, by recipe and tasks: see `workers.runner.gate`.
        self.perplexities: dict[tuple[str, ...], float] = {}
        self._fingerprints: WeakKeyDictionary[Scorer, dict[str, str]] = WeakKeyDictionary()

    @cached_property
    def _unions(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="huarizo-union-")

    @cached_property
    def device(self) -> torch.device:
        """The device of this runner, with threads set on a CPU."""
        wish = self.settings.device
        name = ("cuda" if torch.cuda.is_available() else "cpu") if wish == "auto" else wish
        if name == "cpu":
            torch.set_num_threads(self.settings.threads or os.cpu_count() or 1)
        return torch.device(name)

    @property
    def _wide(self) -> torch.dtype | None:
        """A CPU computes in float32, over weights rounded to the recipe's dtype; a GPU in that dtype itself."""
        return torch.float32 if self.kind is Device.CPU else None

    @property
    def kind(self) -> Device:
        """`cpu` or `cuda`."""
        return Device(self.device.type)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The steps this runner may claim: a GPU runner takes those that ask for any device as well."""
        return (Device.CUDA, Device.CPU) if self.kind is Device.CUDA else (Device.CPU,)

    @property
    def folders(self) -> TaskFolders:
        """Where tasks and their data are found."""
        return TaskFolders(datasets=self.settings.datasets, registered=tuple(self.settings.task_folders))

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to: what it still does would be timed as something else."""
        if self.kind is Device.CUDA:
            torch.cuda.synchronize(self.device)

    def models_of(self, job: JobRecord) -> dict[str, Model]:
        """The job's inspected models by the names that it uses.

        Raises:
            UnknownModelError: one of them is not in the registry, or not inspected.
        """
        with self.database.reading() as session:
            return job_models(session, job)

    def resident(self, known: Mapping[str, Model]) -> Resident:
        """The resident model over these parents; loaded anew only when a parent is not there yet."""
        wanted = frozenset((model.weights_digest, model.header.config_digest) for model in known.values())
        if self._loaded is None or not wanted <= self._loaded[0]:
            self._loaded = None
            by_digest = {model.weights_digest: model for model in known.values()}
            folders = {part.ref: self._unchanged(part) for model in by_digest.values() for part in parts_of(model)}
            kept = KeptGenerators(self.database, self.settings)
            parents = open_parents(by_digest.values(), folders.__getitem__, self.device, generators=kept)
            resident = Resident(
                parents, device=self.device, forward_dtype=self._wide, compiler=Compiler(self.settings.compile)
            )
            self._loaded = (wanted, parents, resident)
        return self._loaded[2]

    def _unchanged(self, part: Model | Adapter) -> Path:
        """The folder of a model or adapter, once its bytes are known to be those that the recipes name.

        Raises:
            CheckpointError: they were replaced since it was inspected.
        """
        folder = model_folder(part.ref, self.settings)
        if isinstance(part, Adapter):
            header = read_adapter(folder)
            same = header == part.header and adapter_digest(folder, header) == part.weights_digest
        else:
            same = read_header(folder) == part.header and weights_digest(folder) == part.weights_digest
        if not same:
            raise CheckpointError(f"the files of {part.name!r} changed since it was inspected: post the job again")
        return folder

    def parents(self, known: Mapping[str, Model]) -> Parents:
        """The opened parents."""
        self.resident(known)
        assert self._loaded is not None
        return self._loaded[1]

    def tokenizer_folder(self, recipe: ResolvedRecipe, known: Mapping[str, Model]) -> Path:
        """The folder of the model that gives the recipe its tokenizer."""
        by_digest = {model.weights_digest: model for model in known.values()}
        return model_folder(by_digest[recipe.tokenizer_donor()].ref, self.settings)

    def _scoring_folder(self, recipe: ResolvedRecipe, known: Mapping[str, Model]) -> Path:
        """A folder with the recipe's tokenizer: the donor's, or one made for a union of vocabularies."""
        donor = self.tokenizer_folder(recipe, known)
        extended = self.resident(known).vocabularies.tokenizer(recipe)
        if extended is None:
            return donor
        folder = Path(self._unions.name) / str(recipe.tokenizer_digest)
        folder.mkdir(exist_ok=True)
        copy_tokenizer(donor, folder, link_roots(self.settings), extended=extended)
        shutil.copyfile(donor / "config.json", folder / "config.json")
        return folder

    def scorer(self, job: JobRecord, recipe: ResolvedRecipe, known: Mapping[str, Model]) -> Scorer:
        """A scorer over the job's tasks, prepared once per tokenizer, length, objective and content of the tasks."""
        specs, sampler = job.request.objective.tasks, job.request.objective.rules.sampler
        # One length for the whole job, whichever candidate comes first: prompts are cut alike for all of them.
        lengths = [config_length(with_defaults(model.header.config_dict)) for model in known.values()]
        length = min((n for n in lengths if n is not None), default=None)
        key = (specs, sampler, recipe.tokenizer_digest, length, *sorted(job.contents.items()))
        if key not in self._prepared:
            folder = self._scoring_folder(recipe, known)
            cache = PlanCache(self.settings.prepared_root())
            found = prepare(specs, folder, self.folders, max_length=length, sampler=sampler, cache=cache)
            self._prepared[key] = (found, {})
        self._prepared.move_to_end(key)
        while len(self._prepared) > KEPT_PREPARED:
            self._prepared.popitem(last=False)
        prepared, scorers = self._prepared[key]
        dtype = self._wide or getattr(torch, recipe.save_dtype)
        if dtype not in scorers:
            tokens = self.settings.batch_tokens or None
            scorers[dtype] = Scorer(prepared, device=self.device, dtype=dtype, batch_tokens=tokens, hidden=self._hidden)
        return scorers[dtype]

    def fingerprints(self, scorer: Scorer) -> dict[str, str]:
        """The scoring fingerprint of every task, taken once per scorer: it asks for the versions of many libraries."""
        if scorer not in self._fingerprints:
            dtype, tasks = str(scorer.dtype).removeprefix("torch."), scorer.prepared.tasks
            self._fingerprints[scorer] = {name: task.fingerprint(dtype, str(self.kind)) for name, task in tasks.items()}
        return self._fingerprints[scorer]
