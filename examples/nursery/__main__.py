"""``python -m examples.nursery <folder>``: grow the nursery, showing how far it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from examples.nursery.grow import GrowthPlan, NurseryFamily, grow

COLUMNS = ("[progress.description]{task.description}", "{task.percentage:>3.0f} %")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, grow, and say where everything lies."""
    parser = argparse.ArgumentParser(prog="python -m examples.nursery", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to grow; a complete nursery there is kept")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="tiny models in seconds, to try the files and the service")
    options = parser.parse_args(arguments)
    plan = GrowthPlan.smoke() if options.smoke else GrowthPlan()
    describe(grow_visibly(options.folder, options.seed, plan))


def grow_visibly(folder: Path, seed: int, plan: GrowthPlan) -> NurseryFamily:
    """Grow with a live bar on the terminal."""
    columns = (TextColumn(COLUMNS[0]), BarColumn(), TextColumn(COLUMNS[1]), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=1.0)
        return grow(
            folder,
            seed=seed,
            plan=plan,
            progress=lambda stage, done: bar.update(task, description=stage, completed=done),
        )


def describe(family: NurseryFamily) -> None:
    """Print the folders of the family and the names of its tasks."""
    print(f"base         {family.base}")
    for skill, folder in family.specialists.items():
        print(f"specialist   {folder}   answers {family.task_names[skill]}")
    print(f"tasks        {family.tasks}")


if __name__ == "__main__":
    main()
