"""Recipes: the short form people write, the resolved form that has one value per tensor, and the way between."""

from core.recipe.resolve import resolve
from core.recipe.resolved import Entry, Group, ResolvedRecipe, ResolvedSource
from core.recipe.short import Layout, Merge, Recipe, Slice, SliceSource, Source, Tokenizer, identity

__all__ = [
    "Entry",
    "Group",
    "Layout",
    "Merge",
    "Recipe",
    "ResolvedRecipe",
    "ResolvedSource",
    "Slice",
    "SliceSource",
    "Source",
    "Tokenizer",
    "identity",
    "resolve",
]
