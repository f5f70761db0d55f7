"""How large a recipe may be. A request of a few bytes must not be able to ask for gigabytes."""

from __future__ import annotations

#: Layers of one source that a slice can name, and layers that a recipe puts out, those of nested recipes included.
MAX_LAYERS = 4096
#: Slices of one recipe.
MAX_SLICES = 1024
#: Sources of a recipe or of a slice.
MAX_SOURCES = 64
#: Levels of recipes within recipes.
MAX_NESTING = 8
#: Recipes in one recipe, itself and all that it holds included.
MAX_RECIPES = 32
#: Parameters that a method or a layout is given.
MAX_PARAMS = 64
#: What a vocabulary's rows can be padded to a multiple of.
MAX_PADDING = 4096
#: A factor on attention logits, on what a layer adds, or on the residual stream.
MIN_FACTOR, MAX_FACTOR = 0.001, 16.0
#: All factors that meet in one tensor: within, float32 keeps every digit of weights of any usual size.
MAX_GATHERED = 2.0**80
