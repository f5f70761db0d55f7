"""The prompts of the four stock tasks over fixed documents, letter for letter: no library may change them unseen."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.catalog import TaskFolders, load_task
from evaluation.prepare import build_requests

ROWS = {
    "arc_challenge": lambda n: {
        "id": f"q{n}",
        "question": f"Which of {n} shearings gives the longest fleece?",
        "choices": {"text": [f"the {k}th  one" for k in range(3 + n % 2)], "label": list("ABCD")[: 3 + n % 2]},
        "answerKey": "ABC"[n % 3],
    },
    "hellaswag": lambda n: {
        "ind": n,
        "activity_label": "Carding [wool]",
        "ctx_a": f"Rera brings {n} baskets. [title] She sits.",
        "ctx_b": "then she",
        "ctx": f"Rera brings {n} baskets. [title] She sits. then she",
        "endings": [f"combs it {n} times [step] and rests.", "spins  it.", "sells it.", "burns it."],
        "source_id": "",
        "split": "val",
        "split_type": "",
        "label": str(n % 4),
    },
    "winogrande": lambda n: {
        "sentence": f"The {n} bags went into the cart since _ was empty; it's dusk.",
        "option1": "the shed",
        "option2": "the cart",
        "answer": str(1 + n % 2),
    },
}
ROWS["arc_easy"] = ROWS["arc_challenge"]
#: Beginning of the sha256 over every (context, continuation) of a task's three documents, by shots.
GOLDEN = {
    ("arc_challenge", 0): "0c8ff1c86a8125df",
    ("arc_challenge", 1): "6cf2be946b9a3f9b",
    ("arc_challenge", 5): "b3651bce97adfe92",
    ("arc_challenge", 10): "9525a2f1e36eec5e",
    ("arc_challenge", 25): "ac45255a9a28fbdf",
    ("arc_easy", 0): "0c8ff1c86a8125df",
    ("arc_easy", 1): "6cf2be946b9a3f9b",
    ("arc_easy", 5): "b3651bce97adfe92",
    ("arc_easy", 10): "9525a2f1e36eec5e",
    ("arc_easy", 25): "ac45255a9a28fbdf",
    ("hellaswag", 0): "d9a24a14dacb5fc5",
    ("hellaswag", 1): "0745204f86f028af",
    ("hellaswag", 5): "255e29df42815782",
    ("hellaswag", 10): "878d96ed801e510d",
    ("hellaswag", 25): "2cad9b2d6f0b10b6",
    ("winogrande", 0): "1fe6fa485b9d878c",
    ("winogrande", 1): "02b642f43e034fce",
    ("winogrande", 5): "795ef0f954d8941c",
    ("winogrande", 10): "2fcba1d09eef024c",
    ("winogrande", 25): "a301865059f8eded",
}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fixed")
    for task, row in ROWS.items():
        (root / task).mkdir()
        for split, numbers in {"train": range(40), "validation": range(100, 103), "test": range(200, 203)}.items():
            pq.write_table(pa.Table.from_pylist([row(n) for n in numbers]), root / task / f"{split}.parquet")
    return TaskFolders(root)


def _digest(task, shots, folders):
    documents = build_requests(load_task(task, folders, num_fewshot=shots))
    return hashlib.sha256(json.dumps(documents).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("task", "shots"), GOLDEN)
def test_prompts_are_the_known_ones(task, shots, fixed):
    assert _digest(task, shots, fixed) == GOLDEN[task, shots]


def test_a_zero_shot_prompt_of_each_task_reads_as_its_authors_wrote_it(fixed):
    def first(task):
        return build_requests(load_task(task, fixed))[0]

    assert first("arc_easy") == [
        ("Question: Which of 200 shearings gives the longest fleece?\nAnswer:", f" the {k}th  one") for k in range(3)
    ]
    assert first("winogrande") == [
        (f"The 100 bags went into the cart since {which}", " was empty; it's dusk.")
        for which in ("the shed", "the cart")
    ]
    # HellaSwag's own clean-up: brackets go, "[title]" becomes a full stop, two blanks become one.
    context = "Carding : Rera brings 100 baskets.. She sits. Then she"
    assert first("hellaswag")[:2] == [(context, " combs it 100 times and rests."), (context, " spins it.")]
