from __future__ import annotations

import pytest

from api import templating


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (183600, "2 d 3 h"), (None, "–")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert templating.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_are_binary(count, text):
    assert templating.size(count) == text


def test_shares_and_differences():
    assert (templating.share(0.7123), templating.share(None)) == ("71.2 %", "–")
    assert (templating.points(0.023), templating.points(-0.023), templating.points(None)) == ("+2.3", "−2.3", "–")
    assert templating.whole(1234567) == "1\u202f234\u202f567"


def test_a_static_files_address_changes_with_its_content():
    assert templating._asset("style.css").startswith("/static/style.css?")
    assert templating._asset("style.css") != templating._asset("page.js")
