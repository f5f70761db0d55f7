"""Recipes: the short form people write, the resolved form that has one value per tensor, and the way between."""

from core.recipe.path import Path
from core.recipe.resolve import resolve, resolve_named
from core.recipe.resolved import Entry, Group, Part, ResolvedRecipe, ResolvedSource
from core.recipe.short import Layout, Merge, Recipe, Repeated, Slice, SliceSource, Source, Tokenizer, identity

__all__ = [
    "Entry",
    "Group",
    "Layout",
    "Merge",
    "Part",
    "Path",
    "Recipe",
    "Repeated",
    "ResolvedRecipe",
    "ResolvedSource",
    "Slice",
    "SliceSource",
    "Source",
    "Tokenizer",
    "identity",
    "resolve",
    "resolve_named",
]
