import copy

import torch

from examples.nursery.rescale import rescale_preserving
from examples.nursery.training import Shape, new_model


def test_a_rescaled_model_has_the_same_logits_and_other_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = new_model(Shape(vocabulary=64, hidden=32, layers=2, heads=2, mlp=48)).double().eval()
    tokens = torch.arange(24).reshape(2, 12)
    rescaled = copy.deepcopy(model)
    rescale_preserving(rescaled, torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(rescaled(tokens).logits, model(tokens).logits, rtol=1e-9, atol=1e-9)
    gammas = rescaled.model.norm.weight.log()
    assert 0.25 < gammas.std() < 0.8  # log-normal of spread .5 over 32 channels
    changed = {
        name for name, tensor in rescaled.state_dict().items() if not torch.equal(tensor, model.state_dict()[name])
    }
    untouched = set(model.state_dict()) - changed
    assert untouched == {"model.embed_tokens.weight"} | {
        f"model.layers.{layer}.{name}.weight" for layer in (0, 1) for name in ("self_attn.o_proj", "mlp.down_proj")
    }


def test_the_same_generator_seed_gives_the_same_rescaling():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = new_model(Shape(vocabulary=64, hidden=32, layers=1, heads=2, mlp=48))
    second = copy.deepcopy(first)
    for model in (first, second):
        rescale_preserving(model, torch.Generator().manual_seed(5))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
