from core.outcomes import bitmap
from core.tasks import TaskContent, order, side_of


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
