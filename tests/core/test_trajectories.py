import pytest

from core.errors import InvalidInputError, MissingCheckpointError
from core.jobs import GeneratorJob, read_job
from core.trajectories import saved, with_snapshots


@pytest.fixture
def run(tmp_path):
    """What a Trainer left behind: three snapshots, one that is being written, and what is none."""
    for name in ("checkpoint-1000", "checkpoint-500", "checkpoint-20"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "model.safetensors").touch()
    (tmp_path / "run" / "checkpoint-1500").mkdir()
    (tmp_path / "run" / "checkpoint-best").mkdir()
    (tmp_path / "run" / "checkpoint-best" / "model.safetensors").touch()
    (tmp_path / "run" / "checkpoint-007").mkdir()
    return tmp_path


def job(**trajectory) -> GeneratorJob:
    fields = {"kind": "generator", "models": [{"name": "base", "ref": "local:base"}], "trajectory": trajectory}
    found = read_job(fields)
    assert isinstance(found, GeneratorJob)
    return found


def expanded(wanted, root):
    return with_snapshots(wanted, lambda ref: root / ref.removeprefix("local:"))


def test_snapshots_stand_in_the_order_of_their_steps_not_of_their_names(run):
    assert saved(run / "run") == ["checkpoint-20", "checkpoint-500", "checkpoint-1000"]


def test_a_folder_becomes_models_of_the_job_the_latest_last(run):
    models = expanded(job(folder="local:run", last=2), run).models
    assert [(model.name, model.ref, model.base) for model in models] == [
        ("base", "local:base", None),
        ("checkpoint-500", "local:run/checkpoint-500", None),
        ("checkpoint-1000", "local:run/checkpoint-1000", None),
    ]


def test_snapshots_that_are_adapters_go_on_the_base(run):
    snapshot = run / "run" / "checkpoint-1000"
    (snapshot / "model.safetensors").rename(snapshot / "adapter_model.safetensors")
    (snapshot / "adapter_config.json").write_text("{}")
    assert expanded(job(folder="local:run", last=1), run).models[-1].base == "base"
    assert expanded(job(snapshots=["local:run/checkpoint-1000"]), run).models[-1].base == "base"


def test_named_snapshots_keep_their_order(run):
    models = expanded(job(snapshots=["tune-300", "tune-100"]), run).models
    assert [(model.name, model.ref) for model in models[1:]] == [("snapshot-1", "tune-300"), ("snapshot-2", "tune-100")]


def test_a_request_that_was_posted_once_has_its_snapshots_already(run):
    once = expanded(job(folder="local:run/"), run)
    assert expanded(once, run) == once
    assert len(once.models) == 4


def test_a_folder_without_snapshots_is_no_trajectory(run):
    with pytest.raises(MissingCheckpointError, match="checkpoint-<step>"):
        expanded(job(folder="local:base"), run)


def test_a_job_has_only_so_many_models(run):
    wanted = job(snapshots=[f"s{n}" for n in range(31)], last=31)
    assert len(expanded(wanted, run).models) == 32
    more = wanted.evolve(models=(*wanted.models, {"name": "x", "ref": "x"}))
    with pytest.raises(InvalidInputError, match="lower `last`"):
        expanded(more, run)


@pytest.mark.parametrize("trajectory", [{}, {"folder": "local:run", "snapshots": ["a"]}, {"folder": "run"}])
def test_a_trajectory_is_a_folder_or_a_list(trajectory):
    with pytest.raises(ValueError, match=r"folder|pattern"):
        job(**trajectory)


def test_differences_may_be_coded_where_there_is_a_trajectory():
    fields = {"kind": "generator", "models": [{"name": "base", "ref": "b"}], "training": {"parameterisation": "delta"}}
    with pytest.raises(ValueError, match="needs two"):
        read_job(fields)
    assert read_job({**fields, "trajectory": {"snapshots": ["tune-1"]}}).settings.parameterisation == "delta"
