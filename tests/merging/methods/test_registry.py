from __future__ import annotations

import pytest

from core.catalog import catalog
from core.errors import UnknownMethodError
from merging.methods import method_of, methods, register


def test_the_catalogue_says_of_every_method_what_its_file_says():
    assert tuple(method.info for method in methods().values()) == catalog().methods


def test_methods_are_found_in_sorted_order():
    assert list(methods()) == sorted(methods())


def test_a_name_taken_twice_is_refused():
    with pytest.raises(ValueError, match=r"'linear' is defined twice"):
        register([method_of("linear"), method_of("slerp"), method_of("linear")])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownMethodError, match="did you mean 'linear'"):
        method_of("liner")
