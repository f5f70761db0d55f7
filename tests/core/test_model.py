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
    ],
)
def test_what_does_not_fit_is_named_with_both_values(change, says):
    with pytest.raises(ParentsDoNotFitError, match=says) as caught:
        check_fit([model("a"), model("b", **change)])
    assert "'a'" in caught.value.message and "'b'" in caught.value.message


def test_depth_may_differ_where_layers_are_stacked():
    check_fit([model("a", layers=2), model("b", layers=7)], same_depth=False)
    with pytest.raises(ParentsDoNotFitError, match="shape"):
        check_fit([model("a", layers=2), model("b", layers=7, width=16)], same_depth=False)
