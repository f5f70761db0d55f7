import pytest
from pydantic import ValidationError

from core.catalog import catalog
from core.draw_records import pack, unpack
from core.draws import ARMS, Draw
from core.errors import InvalidInputError

GENERATOR, BASE = "ab" * 32, "cd" * 32


def draw(**fields):
    return Draw(**{"generator": GENERATOR, "selectors": ("norms",), **fields})


def test_a_draw_says_no_more_than_has_an_effect():
    same = [draw(arm="matched-noise", rho=0.1), draw(arm="matched-noise", rho=0.1, tau=2.0, steps=9, mode="absolute")]
    assert len({each.canonical.digest() for each in same}) == 1
    assert draw(rho=0.1, blend=0.5).canonical == draw(rho=0.1)
    assert draw(arm="parent-average", seed=9, strength=0.1).canonical == draw(arm="parent-average")
    assert draw(arm="posterior", strength=0.1, guidance=2.0).canonical == draw(arm="posterior")
    assert draw(amounts=(1.0, 1.0)).canonical == draw()
    assert draw(selectors=("norms", "ffn:0")).canonical == draw(selectors=("ffn:0", "norms")).canonical


def test_a_draw_keeps_what_has_an_effect():
    for fields in (
        {"tau": 2.0, "strength": 0.4, "eta": 1.0, "guidance": 1.5, "steps": 9, "blend": 0.5, "seed": 3},
        {"arm": "posterior", "tau": 2.0, "mode": "absolute", "coefficients": (0.5,)},
        {"arm": "matched-noise", "tau": 2.0, "strength": 0.3},
        {"amounts": (1.0, 0.5)},
    ):
        assert draw(**fields).canonical == draw(**fields)


@pytest.mark.parametrize(
    ("fields", "idle"),
    [
        ({}, False),
        ({"strength": 0.0}, True),
        ({"strength": 0.0, "mode": "absolute"}, False),
        ({"strength": 0.0, "arm": "posterior"}, False),
        ({"tau": 0.0, "arm": "posterior"}, True),
        ({"tau": 0.0, "arm": "posterior", "mode": "absolute"}, False),
        ({"tau": 0.0}, False),
        ({"blend": 0.0, "mode": "absolute"}, True),
        ({"rho": 0.0}, True),
        ({"amounts": (0.0, 0.1)}, False),
        ({"coefficients": (0.0, 0.0)}, True),
        ({"coefficients": (0.0,), "mode": "absolute"}, False),
    ],
)
def test_a_draw_knows_when_it_changes_nothing(fields, idle):
    assert draw(**fields).idle is idle


def test_amounts_are_dealt_out_over_equal_parts_of_the_stack():
    parts = draw(amounts=(0.0, 0.5, 1.0))
    assert [parts.amount(layer, 7) for layer in range(7)] == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert parts.amount(-1, 7) == 1.0
    assert draw().amount(3, 7) == 1.0


@pytest.mark.parametrize("fields", [{"eta": 0.5}, {"rho": float("nan")}, {"generator": "gen"}, {"selectors": ()}])
def test_a_malformed_draw_is_refused(fields):
    with pytest.raises(ValidationError):
        draw(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rho": 0.013, "tau": 1.7, "seed": 2**63 - 1},
        {
            "arm": "posterior",
            "mode": "absolute",
            "coefficients": (0.1, -0.2, 0.3, 1.0),
            "selectors": ("attn:-2", "ffn:0"),
        },
        {"strength": 0.2, "eta": 1.0, "guidance": 3.0, "blend": 1.2, "steps": 700, "amounts": (0.25, 1.0)},
        {"arm": "parent-average", "rho": 1e-3},
    ],
)
def test_a_record_gives_the_draw_back_bit_for_bit(fields):
    told, base = unpack(pack(draw(**fields), BASE))
    assert (told, base) == (draw(**fields).canonical, BASE)
    assert told.digest() == draw(**fields).canonical.digest()


def test_a_record_is_about_as_long_as_three_digests():
    assert len(pack(draw(rho=0.01, tau=1.5, seed=7), BASE)) == 97
    assert len(pack(draw(strength=0.2, tau=1.5, guidance=2.0, blend=0.9), BASE)) <= 120


@pytest.mark.parametrize("record", [b"", b"\x01" * 20, b"\x02" + bytes(90), pack(draw(), BASE)[:-3]])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(InvalidInputError, match="record"):
        unpack(record)


def test_the_catalogue_has_every_arm_and_every_kind_of_selector():
    assert [arm.name for arm in catalog().arms] == sorted(ARMS)
    assert {selector.name for selector in catalog().selectors} == {"norms", "block:k", "ffn:k", "attn:k"}
    assert "explore-llama" in catalog().generator_presets


def test_every_parameter_of_an_arm_is_a_field_of_a_draw_with_that_default():
    for arm in ARMS.values():
        for spec in arm.params:
            default = Draw.model_fields[spec.name].default
            assert default in (spec.default, None), (arm.name, spec.name)
