import pytest
from pydantic import ValidationError

from core.errors import UnknownNameError
from core.generators import PRESETS, checked, training


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_a_training(preset):
    assert training(preset).steps > 0


def test_a_preset_takes_changes():
    changed = training("explore-llama", selectors=("block:-1",), seed=4)
    assert (changed.selectors, changed.latent, changed.drop, changed.seed) == (("block:-1",), 1024, 0.0, 4)


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="explore-llama"):
        training("explore-lama")
    with pytest.raises(ValidationError):
        training(steps=3)


def test_what_is_wrong_with_settings_is_a_plain_sentence_for_validators():
    assert checked("blocks", {"width": 64}) == training("blocks", width=64)
    for preset, changes, why in (("blcks", {}, "blocks"), ("default", {"chunk": 1}, "training.chunk: ")):
        with pytest.raises(ValueError, match=why) as found:
            checked(preset, changes)
        assert "\n" not in str(found.value)


def test_an_odd_width_is_refused_before_anything_is_trained_because_half_of_it_are_sines():
    with pytest.raises(ValueError, match=r"training\.width: .* is 33: take 34"):
        checked("default", {"width": 33})
    assert all(training(preset).width % 2 == 0 for preset in PRESETS)


def test_the_card_s_preset_compresses_a_norm_of_4096_numbers_to_1024():
    settings = training("explore-llama")
    assert (settings.chunk, settings.latent) == (4096, 1024)
