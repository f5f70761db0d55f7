import errno
import hashlib
import json
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from core.checkpoint import read_header, weights_digest
from core.errors import CancelledError, LeaseLostError, ServiceUnavailableError
from core.records import Device, StepKind
from core.states import JobState, StepState
from store import artifacts, exports, jobs, steps, trials
from tests.store.makers import age, claim, put
from tests.workers.conftest import ALWAYS, SMALL
from workers.runner import export, manifest
from workers.runner.manifest import MANIFEST
from workers.runner.work import run_next


def ask(service, trial, size=10**9):
    with service.database.transaction() as session:
        return exports.ask(session, trial.id, size)


def run(service, step):
    """Run the step that was asked for; its record and, where it made one, its artifact."""
    runner = service.runner()
    assert run_next(runner)["step"] == step.id
    with service.database.reading() as session:
        done = steps.get(session, step.id)
        kept = artifacts.get(session, done.result["artifact"]) if done.result else None
    return done, kept


def folder_of(service, step):
    """Where this claim of the step writes."""
    return service.settings.artifacts / f"{step.id.replace('step_', 'checkpoint_')}_{step.fence}"


def left_of(service, step):
    """Everything that lies there of a step, by whichever claim."""
    name = step.id.replace("step_", "checkpoint_")
    return sorted(path for start in ("", ".") for path in service.settings.artifacts.glob(f"{start}{name}*"))


@pytest.fixture
def winner(finished):
    service, job = finished
    return next(t for t in service.trials(job.id) if t.id == job.verdict["winner"]["trial_id"])


@pytest.fixture
def own(finished):
    """The job's own checkpoint: record and folder."""
    service, job = finished
    with service.database.reading() as session:
        kept = artifacts.of_job(session, job.id)[0]
    return kept, service.settings.artifacts / kept.path


def test_the_manifest_lists_every_file_with_its_right_hash(own):
    kept, folder = own
    manifest = json.loads((folder / MANIFEST).read_text())
    listed = {file["path"]: file for file in manifest["files"]}
    assert set(listed) | {MANIFEST} == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "config.json", "tokenizer.json", "model.safetensors"} <= set(listed)
    for name, file in listed.items():
        data = (folder / name).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), name
    recorded = {file["path"]: file for file in kept.files}
    own_data = (folder / MANIFEST).read_bytes()
    assert recorded.pop(MANIFEST)["sha256"] == hashlib.sha256(own_data).hexdigest()
    assert recorded == listed
    assert kept.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_manifest_says_what_the_checkpoint_is(finished, own, winner):
    service, job = finished
    kept, folder = own
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["recipe_digest"] == winner.recipe_digest
    assert manifest["recipe"] == winner.recipe.model_dump(mode="json", exclude_none=True)
    assert manifest["verdict"] == job.verdict and manifest["fingerprints"] == job.fingerprints
    assert manifest["weights_digest"] == kept.weights_digest == weights_digest(folder) == winner.weights_digest
    assert manifest["parameters"] == read_header(folder).parameters
    assert [model["ref"] for model in manifest["models"]] == [m.ref for m in job.request.models]
    assert manifest["provenance"]["device"].startswith("cpu")
    assert service.job(job.id).state is JobState.SUCCEEDED


def test_the_size_of_shards_changes_files_but_not_weights(finished, own, winner):
    service, _ = finished
    (many_step, many), (one_step, one) = (run(service, ask(service, winner, size)) for size in (20_000, 10**9))
    assert [kept.path for kept in (many, one)] == [folder_of(service, step).name for step in (many_step, one_step)]
    assert many.weights_digest == one.weights_digest == own[0].weights_digest
    folders = [folder_of(service, step) for step in (many_step, one_step)]
    files = [sorted(folder.glob("*.safetensors")) for folder in folders]
    assert len(files[0]) > 2 and len(files[1]) == 1
    assert max(file.stat().st_size for file in files[0]) < files[1][0].stat().st_size
    pieces = {name: tensor for file in files[0] for name, tensor in load_file(file).items()}
    whole = load_file(files[1][0])
    assert set(pieces) == set(whole) and all((pieces[name] == whole[name]).all() for name in whole)
    assert [weights_digest(folder) for folder in folders] == [one.weights_digest] * 2


def test_a_candidate_that_was_never_a_finalist_can_be_exported(finished, winner):
    service, job = finished
    plain = next(t for t in service.trials(job.id) if not t.heldout)
    done, kept = run(service, ask(service, plain))
    assert done.state is StepState.DONE
    assert "None for this candidate" in (folder_of(service, done) / "README.md").read_text()
    assert kept.weights_digest != winner.weights_digest


def test_an_export_that_ended_before_its_manifest_is_made_anew(finished, winner, monkeypatch):
    service, job = finished
    step, seen = ask(service, winner), []
    real = export.write_manifest

    def fail(folder, about, hashes):
        seen.append((folder, sorted(path.name for path in folder.iterdir())))
        raise RuntimeError("the worker stumbles")

    monkeypatch.setattr(export, "write_manifest", fail)
    done, _ = run(service, step)
    ((unnamed, names),) = seen
    folder = folder_of(service, done)
    # All else was there: the manifest is the last file, and the folder has its name after it.
    assert unnamed.parent == folder.parent and unnamed.name.startswith(f".{folder.name}.partial-")
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json"} <= set(names)
    assert done.state is StepState.QUEUED and left_of(service, step) == []
    # What a worker leaves that was killed in the midst of it.
    folder.mkdir()
    (folder / "left-over").write_text("of the first try")
    unnamed.mkdir()
    monkeypatch.setattr(export, "write_manifest", real)
    with service.database.transaction() as session:
        age(session, step.id, "not_before", 60)
    done, kept = run(service, step)
    assert done.state is StepState.DONE
    assert left_of(service, step) == [folder_of(service, done)]
    assert (folder_of(service, done) / MANIFEST).exists() and kept.weights_digest == winner.weights_digest
    assert service.job(job.id).state is JobState.SUCCEEDED


def test_a_disk_that_is_full_at_the_manifest_is_told_and_leaves_nothing(finished, winner, monkeypatch):
    service, _ = finished

    def full(_path):
        raise OSError(errno.ENOSPC, "the disk")

    step = ask(service, winner)
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "sync_file", full)
        done, _ = run(service, step)
    assert done.failure.code == "disk_full" and left_of(service, step) == []
    with service.database.transaction() as session:
        age(session, step.id, "not_before", 60)
    assert run(service, step)[0].state is StepState.DONE


def test_files_are_hashed_as_they_are_written_and_not_again(finished, winner, monkeypatch):
    service, _ = finished
    read, real = [], manifest.sha256_of

    def hashed(path):
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(manifest, "sha256_of", hashed)
    assert run(service, ask(service, winner))[0].state is StepState.DONE
    assert read == ["README.md"]


def held(service, step):
    """The step as a runner claims it."""
    with service.database.transaction() as session:
        mine = claim(session, Device.CPU, owner="runner", kinds=(StepKind.EXPORT,))
    assert mine.id == step.id
    return mine


def test_an_export_whose_lease_ended_before_its_record_clears_away_its_own_folder_only(finished, winner, monkeypatch):
    service, _ = finished
    step = ask(service, winner)
    mine, real, others = held(service, step), export.model_card, []

    def lose(*arguments):
        with service.database.transaction() as session:
            steps.release(session, "runner")
        others.append(folder_of(service, held(service, step)))
        others[0].mkdir()
        return real(*arguments)

    monkeypatch.setattr(export, "model_card", lose)
    with pytest.raises(LeaseLostError):
        export.run(service.runner(), mine, SimpleNamespace(cancelled=False))
    assert left_of(service, step) == others
    monkeypatch.setattr(export, "model_card", real)
    with service.database.transaction() as session:
        steps.release(session, "runner")
        age(session, step.id, "not_before", 60)
    done, _ = run(service, step)
    assert left_of(service, step) == [folder_of(service, done)]


def test_a_job_that_is_cancelled_while_its_export_is_written_down_leaves_nothing(service, monkeypatch):
    job, real = service.post(**SMALL | {"export": ALWAYS}), export.write_manifest
    step = service.until(StepKind.EXPORT)

    def cancel(*arguments):
        manifest = real(*arguments)
        with service.database.transaction() as session:
            jobs.cancel(session, job.id)
        return manifest

    monkeypatch.setattr(export, "write_manifest", cancel)
    with pytest.raises(LeaseLostError):
        export.run(service.runner(), step, SimpleNamespace(cancelled=False))
    assert left_of(service, step) == []


@pytest.mark.parametrize("away", [False, True])
def test_a_folder_stays_when_its_record_may_have_been_committed(finished, winner, monkeypatch, away):
    service, _ = finished
    step, runner, record = ask(service, winner), service.runner(), export._record

    def commits_and_fails(*arguments):
        record(*arguments)
        if away:
            monkeypatch.setattr(runner.database, "reading", gone)
        raise ServiceUnavailableError("the answer to the commit was lost")

    def gone():
        raise ServiceUnavailableError("the database is away")

    monkeypatch.setattr(export, "_record", commits_and_fails)
    mine = held(service, step)
    with pytest.raises(ServiceUnavailableError):
        export.run(runner, mine, SimpleNamespace(cancelled=False))
    with service.database.reading() as session:
        done = steps.get(session, step.id)
        kept = artifacts.get(session, done.result["artifact"])
    assert (service.settings.artifacts / kept.path / MANIFEST).is_file()


def test_weights_that_are_not_the_scored_ones_are_refused_and_removed(finished):
    service, job = finished
    trial = next(t for t in service.trials(job.id) if t.weights_digest and t.label == "hella")
    with service.database.transaction() as session:
        put(session, "trials", trial.id, weights_digest="0" * 64)
    try:
        done, kept = run(service, ask(service, trial))
    finally:
        with service.database.transaction() as session:
            put(session, "trials", trial.id, weights_digest=trial.weights_digest)
    assert (done.state, done.failure.code, kept) == (StepState.FAILED, "trial_failed", None)
    assert left_of(service, done) == []
    assert service.job(job.id).state is JobState.SUCCEEDED


def test_a_cancelled_export_leaves_nothing(finished, winner):
    service, _ = finished

    class Stopped:
        cancelled = True

    step = ask(service, winner)
    with pytest.raises(CancelledError):
        export.run(service.runner(), step, Stopped())
    assert left_of(service, step) == []
    done, _ = run(service, step)
    assert done.state is StepState.DONE


def test_asking_twice_makes_one_export(finished, winner):
    service, _ = finished
    first = ask(service, winner)
    assert ask(service, winner).id == first.id
    assert run(service, first)[0].state is StepState.DONE


def test_parents_exported_are_the_parents(finished):
    service, job = finished
    with service.database.reading() as session:
        parent = trials.of_job(session, job.id)[1]
    step, kept = run(service, ask(service, parent))
    source = service.settings.model_roots[0] / "nursery" / "arc"
    assert kept.weights_digest == weights_digest(source)
    made, origin = load_file(folder_of(service, step) / "model.safetensors"), load_file(source / "model.safetensors")
    assert set(made) == set(origin) and all((made[name] == origin[name]).all() for name in origin)
    assert step.kind is StepKind.EXPORT
