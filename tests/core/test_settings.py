import pytest

from core.errors import ServiceUnavailableError
from core.settings import Settings


def test_artifacts_lie_in_their_own_folder_or_under_home(tmp_path):
    assert Settings(artifacts=tmp_path, home=tmp_path / "home").artifact_root() == tmp_path
    assert Settings(home=tmp_path).artifact_root() == tmp_path / "artifacts"


def test_without_either_folder_the_variable_to_set_is_named():
    with pytest.raises(ServiceUnavailableError, match="HUARIZO_ARTIFACTS"):
        Settings().artifact_root()
