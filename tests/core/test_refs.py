from pathlib import Path

import pytest

from core.errors import MissingCheckpointError, PathNotAllowedError
from core.refs import check_hub, resolve_local


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    for folder in ("one/nursery/base", "two/nursery/base", "two/nursery/only-here", "outside/secret", "one-more/x"):
        (tmp_path / folder).mkdir(parents=True)
    return [tmp_path / "one", tmp_path / "two"]


def test_a_relative_reference_is_found_under_the_first_root_that_has_it(roots):
    assert resolve_local("local:nursery/base", roots) == (roots[0] / "nursery/base").resolve()
    assert resolve_local("local:nursery/only-here", roots) == (roots[1] / "nursery/only-here").resolve()
    assert resolve_local("local:nursery/base", roots[::-1]) == (roots[1] / "nursery/base").resolve()


def test_an_absolute_reference_must_lie_under_some_root(roots, tmp_path):
    inside = roots[1] / "nursery/only-here"
    assert resolve_local(f"local:{inside}", roots) == inside.resolve()
    with pytest.raises(PathNotAllowedError):
        resolve_local(f"local:{tmp_path}/outside/secret", roots)


@pytest.mark.parametrize(
    "path",
    ["../outside/secret", "nursery/../../outside/secret", "../one-more/x", "../../../../etc", "/etc/passwd", "/"],
)
def test_no_way_of_writing_a_path_leads_out_of_the_roots(roots, path):
    with pytest.raises(PathNotAllowedError):
        resolve_local(f"local:{path}", roots)


def test_dots_that_stay_inside_are_followed(roots):
    assert resolve_local("local:nursery/../nursery/base", roots) == (roots[0] / "nursery/base").resolve()


def test_a_relative_path_may_not_climb_from_one_root_into_another(roots):
    with pytest.raises(PathNotAllowedError):
        resolve_local("local:../two/nursery/only-here", roots[:1])


def test_a_link_out_of_a_root_is_refused_and_a_link_within_is_followed(roots, tmp_path):
    (roots[0] / "escape").symlink_to(tmp_path / "outside/secret")
    (roots[0] / "folder").symlink_to(tmp_path / "outside")
    (roots[0] / "alias").symlink_to(roots[0] / "nursery/base")
    for ref in ("local:escape", "local:folder/secret"):
        with pytest.raises(PathNotAllowedError):
            resolve_local(ref, roots)
    assert resolve_local("local:alias", roots) == (roots[0] / "nursery/base").resolve()


def test_a_link_that_turns_in_a_circle_is_refused_or_absent(roots):
    (roots[0] / "loop").symlink_to(roots[0] / "loop")
    with pytest.raises((PathNotAllowedError, MissingCheckpointError)):
        resolve_local("local:loop", roots)


def test_a_root_that_is_itself_a_link_counts_as_what_it_points_to(roots, tmp_path):
    (tmp_path / "linked").symlink_to(roots[0])
    assert resolve_local("local:nursery/base", [tmp_path / "linked"]) == (roots[0] / "nursery/base").resolve()


def test_an_allowed_place_that_is_empty_is_missing_and_the_message_tells_no_absolute_path(roots, tmp_path):
    with pytest.raises(MissingCheckpointError) as caught:
        resolve_local("local:nursery/gone", roots)
    assert str(tmp_path) not in str(caught.value)


def test_a_name_longer_than_file_systems_take_is_missing(roots):
    with pytest.raises(MissingCheckpointError):
        resolve_local("local:" + "a" * 400, roots)


def test_without_roots_nothing_is_allowed():
    with pytest.raises(PathNotAllowedError, match="HUARIZO_MODEL_ROOTS"):
        resolve_local("local:anything", [])


@pytest.mark.parametrize("ref", ["nursery/base", "hub:a/b", "local:", "file:///etc/passwd", "local:a\x00b"])
def test_what_is_no_local_reference_is_refused(roots, ref):
    with pytest.raises(PathNotAllowedError):
        resolve_local(ref, roots)


@pytest.mark.parametrize(
    ("ref", "fits"),
    [
        ("hub:org/model@abc", True),
        ("hub:org/model", True),
        ("hub:evil/model", False),
        ("hub:../x", False),
        ("hub:a/b/c", False),
        ("hub:org/model\n", False),
    ],
)
def test_hub_references_must_match_the_allow_list(ref, fits):
    if fits:
        check_hub(ref, r"^org/.*$")
    else:
        with pytest.raises(PathNotAllowedError):
            check_hub(ref, r"^org/.*$")
