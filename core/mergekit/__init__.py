"""mergekit 0.1.x configurations in and out: parsed mappings to recipes and back. The doors read and write the text."""

from core.mergekit.native import native_dtype
from core.mergekit.reading import Conversion, Knowledge, from_mergekit, model_names
from core.mergekit.stages import MERGES, is_mergekit
from core.mergekit.writing import MergekitForm, to_mergekit

__all__ = [
    "MERGES",
    "Conversion",
    "Knowledge",
    "MergekitForm",
    "from_mergekit",
    "is_mergekit",
    "model_names",
    "native_dtype",
    "to_mergekit",
]
