import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.checkpoint import stored_tensors, weights_digest
from core.errors import NonFiniteCheckpointError
from core.states import JobState
from store import models
from workers.steps import inspect_model
from workers.steps.inspect_model import refuse_non_finite

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def scan(folder, **tensors):
    """Check every tensor of a file as the inspection does."""
    save_file(tensors, folder / "model.safetensors")
    weights_digest(folder, visit=refuse_non_finite)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_found_with_its_tensor_and_place(tmp_path, dtype, value):
    good, bad = torch.linspace(-2, 2, 35).reshape(5, 7).to(dtype), torch.ones(5, 7, dtype=dtype)
    bad[3, 4] = bad[4, 6] = value
    with pytest.raises(NonFiniteCheckpointError, match="element 25 of tensor 'odd'") as found:
        scan(tmp_path, even=good, odd=bad)
    assert found.value.where == "odd"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_extremes_of_a_type_are_numbers(tmp_path, dtype):
    limits = torch.finfo(dtype)
    subnormal = limits.smallest_normal / 2
    extremes = torch.tensor(
        [limits.max, limits.min, limits.smallest_normal, -limits.smallest_normal, subnormal, -subnormal, 0.0, -0.0],
        dtype=dtype,
    )
    assert extremes[4] != 0 and extremes.isfinite().all()
    scan(tmp_path, extremes=extremes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_pattern_of_sixteen_bits_is_judged_as_torch_judges_it(tmp_path, dtype):
    patterns = torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.int16)).view(dtype)
    scan(tmp_path, finite=patterns[patterns.isfinite()])
    save_file({"x": patterns}, tmp_path / "model.safetensors")
    (stored,) = stored_tensors(tmp_path)
    raw = memoryview((tmp_path / "model.safetensors").read_bytes())[stored.start : stored.stop]
    for place in torch.nonzero(~patterns.isfinite()).flatten().tolist():
        with pytest.raises(NonFiniteCheckpointError):
            refuse_non_finite(stored, raw[2 * place : 2 * place + 2])


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, np.uint32), (torch.float64, np.uint64)])
def test_random_patterns_of_wide_types_are_judged_as_torch_judges_them(tmp_path, dtype, kind):
    patterns = np.random.default_rng(5).integers(0, np.iinfo(kind).max, 2048, dtype=kind, endpoint=True)
    # Random exponents are hardly ever all ones: half of them are made so.
    mask = np.array([-np.inf], dtype=f"f{patterns.itemsize}").view(kind)[0]
    patterns[::2] |= mask
    values = torch.from_numpy(patterns.view(f"f{patterns.itemsize}"))
    assert values.dtype is dtype
    save_file({"x": values}, tmp_path / "model.safetensors")
    (stored,) = stored_tensors(tmp_path)
    raw = memoryview(values.numpy().tobytes())
    width = patterns.itemsize

    def refused(place):
        try:
            refuse_non_finite(stored, raw[width * place : width * (place + 1)])
        except NonFiniteCheckpointError:
            return True
        return False

    assert [refused(place) for place in range(len(values))] == (~values.isfinite()).tolist()


def test_an_element_beyond_the_first_piece_has_its_own_number(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_model, "_PIECE_BYTES", 64)
    values = torch.zeros(100)
    values[77] = float("nan")
    with pytest.raises(NonFiniteCheckpointError, match="element 77 "):
        scan(tmp_path, x=values)


@pytest.fixture
def copied(service, smoke_nursery, tmp_path):
    """The service over a copy of the models that a test may spoil."""
    root = tmp_path / "models"
    shutil.copytree(smoke_nursery, root)
    service.settings = service.settings.model_copy(update={"model_roots": (root,)})
    return service, root / "nursery"


def test_a_damaged_parent_fails_the_job_and_names_the_tensor(copied):
    service, nursery = copied
    file = nursery / "arc" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][2, 5] = float("inf")
    save_file(tensors, file, metadata={"format": "pt"})
    job = service.finish(service.post().id)
    assert job.state is JobState.FAILED
    assert (job.failure.code, job.failure.where) == ("non_finite_checkpoint", name)
    element = 2 * tensors[name].shape[1] + 5
    assert f"element {element} " in job.failure.message
    with service.database.reading() as session:
        assert models.by_name(session, "local:nursery/arc").state == "failed"
        assert models.by_name(session, "local:nursery/base").state == "ready"
    assert not service.trials(job.id)


def test_a_parent_is_registered_with_the_header_and_digest_of_its_files(copied):
    service, nursery = copied
    service.post()
    while service.control():
        pass
    with service.database.reading() as session:
        found = models.by_name(session, "local:nursery/wino")
    assert found.weights_digest == weights_digest(nursery / "wino")
    config = json.loads((nursery / "wino" / "config.json").read_text())
    assert found.header.layers == config["num_hidden_layers"]
    stored = load_file(nursery / "wino" / "model.safetensors")
    assert found.header.shapes == {name: tuple(tensor.shape) for name, tensor in stored.items()}


def test_files_that_were_replaced_are_read_anew_by_the_next_job(copied):
    service, nursery = copied
    service.post()
    while service.control():
        pass
    file = nursery / "wino" / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    service.post(name="again")
    while service.control():
        pass
    with service.database.reading() as session:
        assert models.by_name(session, "local:nursery/wino").weights_digest == weights_digest(nursery / "wino")


def test_a_parent_that_links_out_of_the_roots_fails_the_job(copied, tmp_path):
    service, nursery = copied
    (tmp_path / "secret.json").write_text('{"model": {}}')
    (nursery / "arc" / "tokenizer.json").unlink()
    (nursery / "arc" / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    job = service.finish(service.post().id)
    assert job.state is JobState.FAILED
    assert (job.failure.code, job.failure.where) == ("path_not_allowed", "tokenizer.json")
    assert "secret" not in job.failure.message


def test_a_parent_with_a_damaged_config_fails_the_job_with_the_field(copied):
    service, nursery = copied
    file = nursery / "arc" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_attention_heads": "four"}))
    job = service.finish(service.post().id)
    assert job.state is JobState.FAILED
    assert (job.failure.code, job.failure.where) == ("bad_checkpoint", "num_attention_heads")
