import pytest
from families import model

from core.errors import ParentsDoNotFitError
from core.model import check_fit


def test_twins_fit():
    check_fit([model("a"), model("b"), model("c")])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab": 33}, "vocabulary size"),
        ({"rope": 500000.0}, "RoPE"),
        ({"tokenizer": "u"}, "tokenizer"),
        ({"model_type": "mistral"}, "model type"),
        ({"layers": 5}, "depth"),
        ({"width": 16}, "shape"),
        ({"tied": True}, "lm_head.weight"),
        ({"config": {"num_attention_heads": 8, "head_dim": 1}}, "num_attention_heads|head_dim"),
        ({"config": {"rms_norm_eps": 1e-5}}, "rms_norm_eps"),
        ({"config": {"rope_scaling": {"rope_type": "llama3"}}}, "RoPE scaling"),
    ],
)
def test_what_does_not_fit_is_named_with_both_values(change, says):
    with pytest.raises(ParentsDoNotFitError, match=says) as caught:
        check_fit([model("a"), model("b", **change)])
    assert "'a'" in caught.value.message and "'b'" in caught.value.message


def test_equal_tokens_are_not_enough_where_texts_are_cut_in_other_ways():
    def cut(name, rules):
        plain = model(name)
        return plain.evolve(header=plain.header.evolve(tokenizer_rules=rules))

    check_fit([cut("a", "one"), cut("b", "one"), cut("old", None)])
    for models in ([cut("a", "one"), cut("b", "two")], [cut("old", None), cut("a", "one"), cut("b", "two")]):
        with pytest.raises(ParentsDoNotFitError, match=r"'a' and 'b' do not fit.*cut a text in one way") as caught:
            check_fit(models)
        assert caught.value.where == "tokenizer"
        check_fit(models, same_vocabulary=False)


def test_depth_may_differ_where_layers_are_stacked():
    check_fit([model("a", layers=2), model("b", layers=7)], same_depth=False)
    with pytest.raises(ParentsDoNotFitError, match="shape"):
        check_fit([model("a", layers=2), model("b", layers=7, width=16)], same_depth=False)


def test_configs_of_transformers_4_and_5_mean_the_same():
    shape = {"hidden_size": 8, "num_attention_heads": 2}
    old = shape | {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "silu"}
    new = shape | {
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0},
        "head_dim": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    check_fit([model("a", config=old), model("b", config=new)])
    with pytest.raises(ParentsDoNotFitError, match="num_key_value_heads"):
        check_fit([model("a", config=old), model("b", config=new | {"num_key_value_heads": 1})])
