"""Write `core/catalog.json` from the registries: `python -m workers.catalog` (or `make catalog`)."""

from __future__ import annotations

import json
from pathlib import Path

import core
from core.catalog import Catalog, LayoutInfo
from core.draws import ARMS, SelectorInfo
from core.generators import PRESETS
from core.protocols import PROTOCOLS
from core.recipe.layouts import presets
from core.selectors import SELECTORS


def generate() -> str:
    """The catalogue's text, from every registry in sorted order."""
    from evaluation.catalog import LOCAL_TASKS
    from merging.methods import methods
    from search.strategies import strategies

    found = Catalog(
        methods=tuple(method.info for method in methods().values()),
        layouts=tuple(
            LayoutInfo(name=p.name, summary=p.summary, params=p.params, lists=p.lists) for p in presets().values()
        ),
        strategies=tuple(strategy.info for strategy in strategies().values()),
        protocols=tuple(PROTOCOLS),
        tasks=tuple(sorted(LOCAL_TASKS)),
        arms=tuple(ARMS[name] for name in sorted(ARMS)),
        selectors=tuple(SelectorInfo(name=name, summary=text) for name, text in sorted(SELECTORS.items())),
        generator_presets=tuple(sorted(PRESETS)),
    )
    return json.dumps(found.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write the file."""
    assert core.__file__ is not None
    Path(core.__file__).with_name("catalog.json").write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main()
