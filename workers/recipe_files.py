"""Recipe files as people write them: our short form or mergekit's, YAML or JSON, with models by path or hub id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from core.adapters import Adapter, adapter_digest, is_adapter, read_adapter
from core.catalog import catalog
from core.checkpoint import other_form, read_header, weights_digest
from core.errors import CheckpointError, MissingCheckpointError, ParentsDoNotFitError, RecipeError
from core.jobs import HUB_REF, LOCAL_REF
from core.mergekit import Conversion, Knowledge, from_mergekit, is_mergekit, model_names, native_dtype
from core.model import Model
from core.recipe import ResolvedRecipe, resolve
from core.recipe.ingredients import Registered, models_in, names_in
from core.recipe.remarks import remarks
from core.recipe.short import Dtype, Recipe
from core.settings import Settings
from workers.places import link_roots, model_folder
from workers.vocabularies import in_tokens

#: Told an event of a verb in a process of its own.
Tell = Callable[[dict[str, Any]], None]
Form = Literal["auto", "huarizo", "mergekit"]
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?$")
#: A number with an exponent; YAML 1.1 knows those with a point and a sign alone.
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
#: What pydantic calls the members of a union, beside the places that people know.
_MEMBER = re.compile(r"^str$|^Tokenizer$|.*\[")
_KINDS = {
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "string_type": "text",
}


@dataclass(frozen=True)
class RecipeFile:
    """A parsed recipe.

    Attributes:
        form: whose words it is in.
        value: the mapping, or for mergekit's stages a list of them.
        models: what it calls its models and adapters.
    """

    form: Literal["huarizo", "mergekit"]
    value: Any
    models: tuple[str, ...]

    def recipe(self, refs: Mapping[str, str], dtypes: Mapping[str, str], seed: int | None = None) -> Conversion:
        """The recipe over references.

        Args:
            refs: the reference of every model, by what the file calls it.
            dtypes: the dtype that a model is stored in, by what the file calls it; mergekit keeps it.
            seed: of the masks, in place of the recipe's own.

        Raises:
            RecipeError, MergekitError: the file is not a recipe.
        """
        if self.form == "mergekit":
            return from_mergekit(self.value, Knowledge(refs, dtypes, seed or 0))
        recipe = _renamed(_validated(self.value), refs)
        return Conversion(recipe if seed is None else recipe.evolve(seed=seed), ())


def read_recipe_file(file: Path, form: Form = "auto") -> RecipeFile:
    """Parse a file.

    Args:
        file: YAML, of one document or several, or JSON.
        form: whose words it is in; `auto` goes by its keys.

    Raises:
        RecipeError: not readable, or no recipe; names the field.
        MergekitError: a mergekit configuration that is malformed.
    """
    try:
        documents = [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"a recipe must be a YAML or JSON file, but {file.name!r} is not: {error}") from error
    value = documents[0] if len(documents) == 1 else documents
    if form == "mergekit" or (form == "auto" and is_mergekit(value)):
        return RecipeFile("mergekit", value, model_names(value))
    if not isinstance(value, dict):
        raise RecipeError(f"a recipe is one mapping, but {file.name!r} holds {_kind(value)}: see docs/recipes.md")
    return RecipeFile("huarizo", value, names_in(_validated(value)))


def find_models(names: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """The reference of each model that a file names; errors as in `find_model`."""
    return {name: find_model(name, folders) for name in names}


def find_model(name: str, folders: Sequence[Path]) -> str:
    """The `local:` or `hub:` reference of a model as people write it.

    A folder counts before a hub id of the same spelling. A path that leads out of where it starts becomes absolute,
    its links followed.

    Args:
        name: a path, a hub id with or without `@revision`, or a reference already.
        folders: where relative paths start, in the order they are searched.

    Raises:
        MissingCheckpointError: neither a folder nor a hub id.
        CheckpointError: a file; one of pickled or GGUF weights with the way out.
    """
    if HUB_REF.match(name):
        return name
    found = LOCAL_REF.match(name)
    text = found["path"] if found else name
    path = Path(text).expanduser()
    for folder in folders:
        if (folder / path).is_dir():
            place = (folder / path).resolve()
            inside = not path.is_absolute() and place.is_relative_to(folder.resolve())
            return f"local:{path if inside else place}"
    if any((folder / path).is_file() for folder in folders):
        raise other_form(name, [path.name]) or CheckpointError(
            f"a model is a folder of weights, config.json and tokenizer, but {name!r} is a file: name its folder"
        )
    if found is None and _HUB_ID.match(name):
        return f"hub:{name}"
    if found is not None:
        return name
    raise MissingCheckpointError(
        f"{name!r} must be a model's folder or a hub id, but no folder of that name lies under "
        f"{[str(folder) for folder in folders]!r} and no hub id looks so: check the path"
    )


@dataclass(frozen=True)
class Wanted:
    """What the command line says of a recipe besides its file.

    Attributes:
        statistics: the digest of the activation statistics at hand.
    """

    form: Form = "auto"
    save_dtype: Dtype | None = None
    seed: int | None = None
    statistics: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A recipe with everything that it names at hand.

    Attributes:
        registered: models and adapters, by reference.
        folders: where they lie, by reference.
        roots: where links among their files may end.
        notes: what to know of a recipe that was mergekit's.
    """

    recipe: Recipe
    registered: Mapping[str, Model | Adapter]
    folders: Mapping[str, Path]
    roots: tuple[Path, ...]
    notes: tuple[str, ...]


def prepare(file: Path, wanted: Wanted, tell: Tell | None = None, *, hashed: bool = True) -> Prepared:
    """Read a recipe file and find what it names.

    Args:
        file: the recipe.
        wanted: options.
        tell: told which model is being read.
        hashed: whether models are known by their weights; without, by where they lie, which costs no reading.

    Raises:
        RecipeError, MergekitError: the file is not a recipe.
        HuarizoError: a model cannot be used.
    """
    found = read_recipe_file(file, wanted.form)
    searched = (Path.cwd(), file.absolute().parent, *Settings().model_roots)
    refs = find_models(found.models, searched)
    # A local verb may read what its user can.
    settings = Settings().model_copy(update={"model_roots": (*searched, Path("/"))})
    folders = {ref: model_folder(ref, settings) for ref in dict.fromkeys(refs.values())}
    registered = {ref: _unread(ref, folder) for ref, folder in folders.items()}
    models = ((name, registered[ref]) for name, ref in refs.items())
    dtypes = {name: native_dtype(model.header) for name, model in models if isinstance(model, Model)}
    made = found.recipe(refs, dtypes, wanted.seed)
    recipe = made.recipe if wanted.save_dtype is None else made.recipe.evolve(save_dtype=wanted.save_dtype)
    recipe = _with_statistics(recipe, wanted.statistics)
    if hashed:
        resolved(recipe, registered, folders)  # What headers alone decide is said before gigabytes are read.
        registered = _read(registered, folders, tell)
    return Prepared(recipe, registered, folders, link_roots(settings), made.notes)


def resolved(recipe: Recipe, registered: Registered, folders: Mapping[str, Path]) -> ResolvedRecipe:
    """As `core.recipe.resolve`, but vocabularies that do not fit are told apart by their tokens."""
    try:
        return resolve(recipe, registered)
    except ParentsDoNotFitError as error:
        raise in_tokens(error, models_in(recipe, registered).values(), folders.__getitem__) from error


def notes_of(prepared: Prepared, found: ResolvedRecipe) -> tuple[str, ...]:
    """What to know of a recipe: what the conversion told, and what of it has no effect."""
    models = models_in(prepared.recipe, prepared.registered).values()
    return (*prepared.notes, *remarks(prepared.recipe, found, models))


def _unread(ref: str, folder: Path) -> Model | Adapter:
    """What headers say."""
    if is_adapter(folder):
        return Adapter(name=ref, ref=ref, weights_digest=f"unread {ref}", header=read_adapter(folder))
    return Model(name=ref, ref=ref, weights_digest=f"unread {ref}", header=read_header(folder))


def _read(
    unread: Mapping[str, Model | Adapter], folders: Mapping[str, Path], tell: Tell | None
) -> dict[str, Model | Adapter]:
    """The same with the digests of their weights."""
    found: dict[str, Model | Adapter] = {}
    for done, (ref, model) in enumerate(unread.items()):
        if tell is not None:
            tell({"event": "progress", "doing": f"reading {ref}", "done": done, "total": len(unread)})
        folder = folders[ref]
        digest = adapter_digest(folder, model.header) if isinstance(model, Adapter) else weights_digest(folder)
        found[ref] = model.evolve(weights_digest=digest)
    return found


def _with_statistics(recipe: Recipe, at_hand: str | None) -> Recipe:
    """The recipe with the activation statistics at hand, wherever it or a recipe in it looks at some and names none.

    Raises:
        RecipeError: it names others, or looks at none.
    """
    if at_hand is None:
        return recipe
    found = _measuring(recipe, at_hand)
    if found is None:
        measured = [info.name for info in catalog().methods if info.measured]
        raise RecipeError(
            f"activation statistics are for methods that look at them ({', '.join(measured)}), but this recipe has "
            "none of them: leave the file out",
            where="statistics",
        )
    return found


def _measuring(recipe: Recipe, at_hand: str) -> Recipe | None:
    """The recipe with the statistics named; None where neither it nor a recipe in it looks at any."""
    inner = {s.name: _measuring(s.recipe, at_hand) for s in recipe.sources if s.recipe is not None}
    own = any(catalog().method(name).measured for name in recipe.methods)
    if not own and not any(inner.values()):
        return None
    if own and recipe.statistics not in (None, at_hand):
        raise RecipeError(
            f"the recipe names the activation statistics {recipe.statistics!r}, but those at hand are {at_hand!r}: "
            "give the file that it means, or take the name out",
            where="statistics",
        )
    sources = tuple(s.evolve(recipe=inner.get(s.name) or s.recipe) for s in recipe.sources)
    return recipe.evolve(sources=sources, statistics=at_hand if own else recipe.statistics)


def _validated(value: Any) -> Recipe:
    try:
        return Recipe.model_validate(_with_numbers(value))
    except ValidationError as error:
        # A union tells what each of its members wants; the one that was meant has the deepest place.
        first = max(error.errors(), key=lambda found: len(found["loc"]))
        where = ".".join(str(part) for part in first["loc"] if not _MEMBER.match(str(part)))
        told = ": ".join(part for part in ("this is not a recipe", where, _message(first)) if part)
        raise RecipeError(told, where=where or None) from error


def _message(found: Mapping[str, Any]) -> str:
    """What a finding says in the words of people who write YAML."""
    if found["type"] in _KINDS:
        return f"must be {_KINDS[found['type']]}, but got {found['input']!r:.100}: see docs/recipes.md"
    if found["type"] == "extra_forbidden":
        return f"a recipe has no such key (it holds {found['input']!r:.100}): remove it, or see docs/recipes.md"
    if found["type"] == "missing":
        return "is missing: give it"
    return str(found["msg"]).removeprefix("Value error, ")


def _with_numbers(value: Any, inside: bool = False) -> Any:
    """The same with the numbers that YAML 1.1 takes for text, `1e-5`, as numbers; among the values of `params` only."""
    if isinstance(value, dict):
        kept = {"filter": value["filter"]} if "filter" in value else {}
        return {name: _with_numbers(inner, inside or name == "params") for name, inner in value.items()} | kept
    if isinstance(value, list):
        return [_with_numbers(inner, inside) for inner in value]
    return float(value) if inside and isinstance(value, str) and _EXPONENT.match(value) else value


def _renamed(recipe: Recipe, refs: Mapping[str, str]) -> Recipe:
    """The recipe with references for names."""

    def named(name: str | None) -> str | None:
        return None if name is None else refs.get(name, name)

    sources = tuple(
        source.evolve(
            model=named(source.model),
            adapter=named(source.adapter),
            recipe=None if source.recipe is None else _renamed(source.recipe, refs),
        )
        for source in recipe.sources
    )
    return recipe.evolve(sources=sources)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "several documents" if value else "nothing"
    return f"a {type(value).__name__}"
