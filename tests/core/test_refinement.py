from core.refinement import Refine, allowance, applies, asked


def test_auto_refines_searches_that_name_no_strategy_and_are_long_enough():
    assert applies(Refine(), 40, named=False)
    assert applies(Refine(), None, named=False)
    assert not applies(Refine(), 40, named=True)
    assert not applies(Refine(), 11, named=False)


def test_whoever_asks_for_it_or_against_it_is_heard():
    assert applies(Refine(enabled=True), 2, named=True)
    assert not applies(Refine(enabled=False), 40, named=False)


def test_the_best_structure_may_be_refined_twice_under_both():
    assert [asked(Refine(granularity=name), 3) for name in ("holes", "tensor", "both")] == [3, 3, 4]


def test_a_budget_pays_for_so_many_refinements_and_no_more():
    rules = Refine(max_items=1500, share=0.3)
    assert allowance(rules, None, None, 4) == (1500, 4)
    # One for every eight trials, but one at least.
    assert allowance(rules, 20, None, 4) == (1500, 2)
    assert allowance(rules, 5, None, 4) == (1500, 1)
    # Of 3,000 items 900: three of 300 are the least that is worth beginning.
    assert allowance(rules, None, 3000, 4) == (300, 3)
    assert allowance(rules, None, 500, 4) == (150, 0)
