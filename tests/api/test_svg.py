from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from api import svg
from api.svg import Dot, Level, Slot, history, layout, nice_ticks, percent

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.483, 0.634, [0.45, 0.5, 0.55, 0.6, 0.65]),
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.5, 0.5, [0.5, 0.52]),
        (0, 9, [0, 5, 10]),
        (0.0, 0.0, [0.0, 0.5]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low, high, ticks):
    found = nice_ticks(low, high, 5)
    if (low, high) == (0.0, 1.0):
        assert found == [0.0, 0.5, 1.0]
    assert found[0] <= low and found[-1] >= high
    assert found == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.5, 0.05, "50 %"), (0.5125, 0.005, "51.2 %"), (1.0, 0.5, "100 %"), (0.5, 0.0001, "50.00 %")],
)
def test_percentages_have_the_decimals_their_step_needs(value, step, text):
    assert percent(value, step) == text


def test_dots_and_lines_stand_where_the_scales_say():
    dots = [Dot(0, 0.4, 0), Dot(5, 0.6, 1), Dot(10, 0.5, 2)]
    root = parsed(history(dots, [Level(0.5, "base")], width=246, height=146))
    # The plot spans x 46..150 for 0..11 and y 112..12 for 0.4..0.6.
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter(f"{SVG}circle")]
    assert circles == [(46.0, 112.0), (93.3, 12.0), (140.5, 62.0)]
    (level,) = [line for line in root.iter(f"{SVG}line") if line.get("class") == "level"]
    assert level.get("y1") == level.get("y2") == "62.0"
    (best,) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "best"]
    assert best.get("d") == "M46.0,112.0H93.3V12.0H140.5"


@pytest.mark.parametrize(
    ("count", "ticks"), [(1, ["0", "1"]), (3, ["0", "1", "2", "3"]), (1000, ["0", "200", "400", "600", "800", "1000"])]
)
def test_trials_are_counted_in_whole_numbers_up_to_the_last(count, ticks):
    root = parsed(history([Dot(number, 0.5, 0) for number in range(count)], []))
    assert [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "tick middle"] == ticks


def test_faint_dots_never_lift_the_best_so_far():
    dots = [Dot(0, 0.4, 0), Dot(1, 0.9, 0, faint=True), Dot(2, 0.5, 0)]
    root = parsed(history(dots, []))
    (best,) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "best"]
    assert len(re.findall("V", best.get("d", ""))) == 1
    assert "50.0 % by number 2" in root.get("aria-label", "")


def test_a_whisker_reaches_one_standard_error_each_way():
    root = parsed(history([Dot(0, 0.5, 0, stderr=0.1), Dot(1, 0.4, 1)], []))
    (whisker,) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "whisker"]
    (x, low), (_, high) = (0, 0), (0, 0)
    numbers = [float(number) for number in re.findall(r"[\d.]+", whisker.get("d", ""))]
    x, low, high = numbers[:3]
    centre = float(next(c for c in root.iter(f"{SVG}circle")).get("cy", 0))
    assert (low + high) / 2 == pytest.approx(centre, abs=0.11)
    assert low > centre > high and x > 0


def test_labels_of_equal_parents_do_not_overlap():
    root = parsed(history([Dot(0, 0.5, 0)], [Level(0.5, "a"), Level(0.5, "b"), Level(0.499, "c")]))
    tops = sorted(float(t.get("y", 0)) for t in root.iter(f"{SVG}text") if t.text in ("a", "b", "c"))
    assert all(below - above >= 12 for above, below in pairwise(tops))


def test_a_hostile_name_is_text_and_nothing_else():
    evil = "</text><script>alert(1)</script>"
    drawn = history([Dot(0, 0.5, 0, title=evil)], [Level(0.4, evil)]) + layout([Slot(evil, ((0, 1.0, evil, evil),))])
    assert "<script" not in drawn
    for picture in (
        history([Dot(0, 0.5, 0, title=evil)], [Level(0.4, evil)]),
        layout([Slot(evil, ((0, 1.0, "x", evil),))]),
    ):
        assert "script" not in {element.tag for element in parsed(picture).iter()}


def test_pictures_carry_no_inline_style_that_the_policy_would_block():
    drawn = history([Dot(0, 0.5, 0, stderr=0.1)], [Level(0.4, "a")]) + layout([Slot("0", ((0, 1.0, "0", "t"),))])
    assert "style=" not in drawn and "fill=" not in drawn


def test_a_layout_has_a_row_per_slot_cut_by_shares():
    root = parsed(
        layout([Slot("0", ((0, 0.25, "0", "a"), (1, 0.75, "1", "b"))), Slot("1", ((1, 1.0, "1", "b"),))], width=150)
    )
    bars = [(float(b.get("x", 0)), float(b.get("width", 0)), b.get("class")) for b in root.iter(f"{SVG}rect")]
    assert bars == [(46.0, 24.0, "s0"), (71.0, 74.0, "s1"), (46.0, 99.0, "s1")]


def test_a_deep_stack_stays_one_screen_high():
    root = parsed(layout([Slot(str(i), ((0, 1.0, str(i), "t"),)) for i in range(80)]))
    assert float(root.get("viewBox", "").split()[3]) < 640


def test_nothing_to_draw_is_no_picture():
    assert history([], []) == "" and layout([]) == ""


def test_a_curve_steps_from_leader_to_leader_up_to_the_end():
    drawn = str(svg.curve([(100, 0.5), (300, 0.6)], [svg.Level(0.55, "base")], end=400, unit="items", width=546))
    # The plot runs from 46 to 450 over 400 items.
    assert 'd="M147.0,' in drawn and "H349.0V" in drawn and "H450.0" in drawn
    assert "60.0 % after 300 items" in drawn and "base: 55.0 %" in drawn
    assert svg.curve([], [svg.Level(0.5, "base")], end=1, unit="items") == ""
    walked = str(svg.curve([(0, 0.5), (10, 0.4)], (), end=0, unit="items", stepped=False))
    assert re.search(r'd="M[\d.]+,[\d.]+L[\d.]+,[\d.]+"', walked)


def test_a_loss_is_no_percentage():
    drawn = str(svg.curve([(0, 2.25), (10, 1.5)], (), end=10, unit="steps", stepped=False, shares=False))
    assert "1.5 after 10 steps" in drawn and "Loss against steps, from 2.25 to 1.5." in drawn
    assert "%" not in drawn


def test_intervals_lie_on_both_sides_of_zero():
    spans = [svg.Span("a <b>", 1.0, -1.0, 3.0), svg.Span("c", -0.5, -0.9, -0.1, strong=False)]
    drawn = str(svg.intervals(spans, unit="points", width=634, label=220))
    # From -1 to 3 over 400 units: zero at 320.
    assert '<line class="zero" x1="320.0"' in drawn and 'd="M220.0,19H620.0' in drawn
    assert "a &lt;b&gt;: +1.00 points, −1.00 to +3.00" in drawn and drawn.count("faint") == 1
    assert svg.intervals([], unit="points") == ""


def test_bars_are_as_long_as_their_shares_and_a_line_says_what_chance_gets():
    drawn = str(svg.bars([("a", 0.8), ("b", 0.2)], line=0.1, said="Importance.", width=718, label=260))
    assert 'width="400.0"' in drawn and 'width="100.0"' in drawn and '<line class="level" x1="310.0"' in drawn
    assert svg.bars([], said="") == ""


def test_a_slice_has_a_dot_per_value_on_its_axis():
    drawn = str(svg.scatter([(1.0, 0.5, True), (100.0, 0.6, False)], low=1, high=100, log=True, title="x", width=256))
    assert 'cx="46.0"' in drawn and 'cx="246.0"' in drawn and drawn.count("faint") == 1
    named = str(svg.scatter([(1.0, 0.5, True)], low=-0.5, high=1.5, names=["ties", "dare"], title="m", width=256))
    assert 'cx="196.0"' in named and ">ties<" in named and ">dare<" in named
    assert svg.scatter([], low=0, high=1, title="x") == ""
