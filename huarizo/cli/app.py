"""The command line: every verb with its options. What a verb does is in its own module, imported when it is used.

Exit codes: 0 it worked; 1 it did not (a problem was reported, a job failed or was cancelled, a check failed);
2 the command line was wrong; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

app = typer.Typer(
    name="huarizo",
    help="Breed language models: search for the merge, layer layout or sampled weights that score best, prove the "
    "winner on held-out questions, export it.",
    epilog="Exit codes: 0 it worked, 1 it did not (the reason is on stderr), 2 wrong command line, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SERVICE, JOBS, LOCAL = "Service", "Jobs", "On this machine"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]
INTERRUPTED = 130

_debug = False


@app.callback()
def root(
    api_url: Annotated[
        str | None,
        typer.Option(help="Where the service answers (HUARIZO_API_URL, else this checkout's `huarizo up`)."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every verb; they come before it."""
    global _debug
    _debug = debug
    if api_url is not None:
        os.environ["HUARIZO_API_URL"] = api_url


@app.command(rich_help_panel=SERVICE)
def up() -> None:
    """Start a service here (database, broker, API, workers) and keep it running until Ctrl-C."""
    from huarizo.cli import service

    service.run_up()


@app.command(rich_help_panel=SERVICE)
def worker(
    role: Annotated[str, typer.Option(help="control, inspect or device.")],
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda:<n>, for --role device (else HUARIZO_DEVICE).")
    ] = None,
) -> None:
    """Become one worker of a service; HUARIZO_DATABASE_URL and HUARIZO_BROKER_URL say which."""
    from huarizo.cli import service

    service.become_worker(role, device)


@app.command(rich_help_panel=SERVICE)
def migrate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; 1 if the schema is not the newest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema to the newest version."""
    from huarizo.cli import service

    raise typer.Exit(service.run_migrations(check=check, as_json=as_json))


@app.command(rich_help_panel=SERVICE)
def doctor(as_json: AsJson = False) -> None:
    """Check this machine and the service, and say how to mend what is broken."""
    from huarizo.cli import doctor as checks

    raise typer.Exit(checks.run(as_json=as_json))


@app.command(rich_help_panel=JOBS)
def submit(
    job: Annotated[str, typer.Argument(metavar="JOB.json", help="The job as JSON; - reads stdin.")],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show progress until it ends, then the verdict.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same job posted twice under one key is one job.")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="Begin with this job's candidates; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it will cost; post nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a job, then post it."""
    if dry_run:
        return estimate(job, as_json=as_json)
    from huarizo.cli import jobs as verbs

    raise typer.Exit(
        verbs.submit(
            job, watch=watch, idempotency_key=idempotency_key, as_json=as_json, warm_start=tuple(warm_start or ())
        )
    )


@app.command(rich_help_panel=JOBS)
def estimate(
    job: Annotated[str, typer.Argument(metavar="JOB.json", help="The job as JSON; - reads stdin.")],
    device: Annotated[
        str | None, typer.Option(help="What will score, such as cpu or 'NVIDIA H200'; else what scored last.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many of them; the job's parallel at most.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a job will cost in items, builds, time and memory; post nothing."""
    from huarizo.cli import estimate as verb

    verb.run(job, device=device, workers=workers, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def clone(
    job: JobId,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as budget.trials=120; may be repeated."),
    ] = None,
    warm_start: Annotated[bool, typer.Option("--warm-start", help="Begin with the candidates of JOB.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show progress until it ends, then the verdict.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same clone posted twice under one key is one job.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Post a job again with some fields changed."""
    from huarizo.cli import jobs as verbs

    raise typer.Exit(
        verbs.clone(
            job,
            tuple(change or ()),
            warm_start=warm_start,
            watch=watch,
            idempotency_key=idempotency_key,
            as_json=as_json,
        )
    )


@app.command(rich_help_panel=JOBS)
def extend(
    job: JobId,
    trials: Annotated[int | None, typer.Option(help="Candidates in all.")] = None,
    item_evaluations: Annotated[int | None, typer.Option("--items", help="Items scored in all.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Wall time in all.")] = None,
    device_seconds: Annotated[float | None, typer.Option(help="Time of devices in all.")] = None,
    expected_improvement: Annotated[
        float | None, typer.Option(help="Points; the search goes on until less than this is expected.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Raise limits of a search that has not ended, each to a new total."""
    from huarizo.cli import jobs as verbs

    wanted = {
        "trials": trials,
        "item_evaluations": item_evaluations,
        "seconds": seconds,
        "device_seconds": device_seconds,
        "expected_improvement": expected_improvement,
    }
    verbs.extend(job, wanted, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def watch(job: JobId, as_json: AsJson = False) -> None:
    """Show a job's progress until it ends, then its verdict."""
    from huarizo.cli import jobs as verbs

    raise typer.Exit(verbs.watch(job, as_json=as_json))


@app.command(name="jobs", rich_help_panel=JOBS)
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from huarizo.cli import jobs as verbs

    verbs.list_jobs(state=state, limit=limit, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def show(job: JobId, as_json: AsJson = False) -> None:
    """Show a job: progress, best so far, verdict, artifacts."""
    from huarizo.cli import jobs as verbs

    verbs.show(job, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def trials(
    job: JobId,
    order: Annotated[str, typer.Option(help="number, or score (best first).")] = "number",
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """List a job's candidates."""
    from huarizo.cli import jobs as verbs

    verbs.list_trials(job, order=order, limit=limit, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def explain(job: JobId) -> None:
    """Print what a search found out, as JSON: importance, sensitivity, slices, its course."""
    from huarizo.cli import report as verbs

    verbs.explain(job)


@app.command(rich_help_panel=JOBS)
def report(
    job: JobId,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where; by default JOB.html.")] = None,
    fresh: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Have the search explained first; a matter of seconds.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Save a job as one page of HTML that needs no service: verdict, scores, curves, recipes, provenance."""
    from huarizo.cli import report as verbs

    verbs.report(job, out, fresh=fresh, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def cancel(job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job; what runs stops within seconds."""
    from huarizo.cli import jobs as verbs

    verbs.act("cancel", job, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def pause(job: JobId, as_json: AsJson = False) -> None:
    """Let running candidates end and start no more."""
    from huarizo.cli import jobs as verbs

    verbs.act("pause", job, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def resume(job: JobId, as_json: AsJson = False) -> None:
    """Go on with a paused job."""
    from huarizo.cli import jobs as verbs

    verbs.act("resume", job, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def export(
    what: Annotated[str, typer.Argument(metavar="ARTIFACT|TRIAL|JOB", help="An id of one of these.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Download a checkpoint, checking every file's hash; a trial is exported first."""
    from huarizo.cli import export as verb

    verb.export(what, out, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def artifacts(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20, as_json: AsJson = False
) -> None:
    """List checkpoints, generators and explanations."""
    from huarizo.cli import artifacts as verb

    verb.list_artifacts(limit=limit, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def delete(artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact's id.")]) -> None:
    """Delete an artifact with its files."""
    from huarizo.cli import artifacts as verb

    verb.delete(artifact)


@app.command(rich_help_panel=LOCAL)
def merge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe or a mergekit configuration, YAML or JSON.", exists=True)
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The folder to write; not needed with --dry-run and --to-mergekit."),
    ] = None,
    form: Annotated[
        Literal["auto", "huarizo", "mergekit"],
        typer.Option("--format", help="Whose words the file is in; auto goes by its keys."),
    ] = "auto",
    save_dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None, typer.Option(help="In place of the recipe's own.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="In place of the recipe's own.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What the merge may hold at once, such as 8GiB.")
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Weights files are cut at this size; 5GiB by default.")
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Activation statistics, a safetensors file."),
    ] = None,
    generator: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", exists=True, file_okay=False, help="A generator to sample from; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be made and what it takes; make nothing.")
    ] = False,
    to_mergekit: Annotated[
        bool, typer.Option("--to-mergekit", help="Print the recipe as a mergekit configuration; make nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merge one recipe into a checkpoint, without any service."""
    from huarizo.cli import merge as verb

    memory, shard = (None if text is None else verb.size_of(text) for text in (max_memory, shard_size))
    options = verb.Options(form, save_dtype, seed, memory, shard, statistics, tuple(generator or ()))
    if to_mergekit:
        return verb.to_mergekit(recipe, options, as_json=as_json)
    if dry_run:
        raise typer.Exit(verb.dry_run(recipe, options, as_json=as_json))
    if out is None:
        raise typer.BadParameter("name the folder to write", param_hint="OUT")
    return verb.merge(recipe, out, options, as_json=as_json)


@app.command(rich_help_panel=LOCAL)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or a local: or hub: reference.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="search (the default), search-fast, open-llm-v1-core (three of the board's six tasks) or open-llm-v1."
        ),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="lm-eval's tasks or groups, or your own; or some of a protocol's.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, max=64, help="Examples before each question; without, each task's own number.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first documents of tasks: no full score.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the forward pass; auto is float32 on a CPU, the stored one on a GPU."),
    ] = "auto",
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Of one forward pass; without, found out.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="The whole report, as JSON.")
    ] = None,
    log_samples: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", file_okay=False, help="Every prompt and answer, JSON lines per task."),
    ] = None,
    check_precision: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="In half precision: compare N documents of each task with float32."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score one checkpoint on whole lm-eval tasks, without any service."""
    from huarizo.cli import evaluate as verb

    options = verb.Options(
        protocol, tasks, num_fewshot, limit, device, dtype, batch_tokens, output, log_samples, check_precision
    )
    verb.evaluate(model, options, as_json=as_json)


@app.command(rich_help_panel=LOCAL)
def nursery(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Where to grow it; without, in the first model root.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed grows another family.")] = 7,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny models in seconds, that know next to nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Grow a family of small models with their benchmarks, to try everything on."""
    from huarizo.cli import nursery as verb

    verb.grow(folder, seed=seed, smoke=smoke, as_json=as_json)


@app.command(rich_help_panel=LOCAL)
def version(as_json: AsJson = False) -> None:
    """Print the versions of Huarizo and what its numbers depend on."""
    from huarizo.cli import versions

    versions.show(as_json=as_json)


def main() -> NoReturn:
    """Run a command line; errors become one clear line and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `huarizo jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_report(error))
    sys.exit(0)


def _report(error: Exception) -> int:
    from huarizo.cli.failure import lines_of

    if _debug:
        traceback.print_exception(error)
    for line in lines_of(error):
        sys.stderr.write(f"{line}\n")
    return 1
