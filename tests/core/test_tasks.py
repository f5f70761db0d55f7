from core.outcomes import bitmap
from core.tasks import TaskContent, kin_of, order, part_of, side_of


def test_the_default_split_halves_and_ignores_case_and_punctuation():
    sides = [side_of(f"question number {i}") for i in range(4000)]
    assert abs(sides.count("search") - 2000) < 130  # Four standard deviations of a fair coin.
    assert side_of("A  Question, number 7!") == side_of("a question number 7")


def test_sides_part_the_documents():
    content = TaskContent(
        name="t",
        version="1",
        content_digest="d",
        documents=10,
        search=bitmap([0, 3, 9], 10).hex(),
        metrics=("acc",),
        has_fewshot=True,
    )
    assert content.side("search") == (0, 3, 9)
    assert content.side("heldout") == (1, 2, 4, 5, 6, 7, 8)


def test_an_order_is_a_seeded_shuffle_that_does_not_depend_on_what_else_is_ordered():
    numbers = tuple(range(200))
    first = order(1, "digest", numbers)
    assert sorted(first) == list(numbers) and first != numbers
    assert first == order(1, "digest", tuple(reversed(numbers)))
    assert first != order(2, "digest", numbers) and first != order(1, "other", numbers)
    kept = [n for n in first if n < 100]
    assert order(1, "digest", numbers[:100]) == tuple(kept)


def test_what_is_kept_back_is_a_share_of_the_held_out_side_and_the_same_for_every_job():
    content = TaskContent(
        name="t",
        version="1",
        content_digest="d",
        documents=100,
        search=bitmap(range(60), 100).hex(),
        metrics=("acc",),
        has_fewshot=True,
    )
    assert part_of(content, "search", 0.5) == tuple(range(60))
    assert part_of(content, "heldout", 0.0) == tuple(range(60, 100)) and part_of(content, "final", 0.0) == ()
    held, final = part_of(content, "heldout", 0.25), part_of(content, "final", 0.25)
    assert len(final) == 10 and sorted(held + final) == list(range(60, 100))
    assert final != tuple(range(60, 70)) and final == tuple(sorted(final))
    # A larger share keeps back the same ones and more.
    assert set(final) < set(part_of(content, "final", 0.5))
    assert len(part_of(content, "final", 0.001)) == 1


def test_documents_that_give_each_other_away_are_kept_back_together():
    kin = "".join(kin_of(f"pair {n // 2}") for n in range(40))
    content = TaskContent(
        name="t",
        version="1",
        content_digest="d",
        documents=40,
        search="00" * 5,
        metrics=("acc",),
        has_fewshot=True,
        kin=kin,
    )
    final = set(part_of(content, "final", 0.3))
    assert len(final) == 12
    assert all((n ^ 1) in final for n in final)
    assert kin_of("One  pair!") == kin_of("one pair") != kin_of("another pair")
    # Where all hang together, nothing can be kept back.
    assert part_of(content.evolve(kin=kin[:4] * 40), "final", 0.5) == ()


def test_of_a_single_held_out_item_nothing_is_kept_back():
    content = TaskContent(
        name="t", version="1", content_digest="d", documents=2, search="01", metrics=("acc",), has_fewshot=False
    )
    assert part_of(content, "heldout", 0.9) == (1,) and part_of(content, "final", 0.9) == ()
