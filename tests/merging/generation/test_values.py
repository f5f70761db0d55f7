import pytest
import torch

from merging.generation.values import changed, numel, row_norms, values_of


@pytest.fixture
def matrix():
    return torch.empty((6, 300)).normal_(generator=torch.Generator().manual_seed(4))


def test_row_norms_are_those_of_linear_algebra(matrix):
    torch.testing.assert_close(row_norms(matrix), torch.linalg.vector_norm(matrix.double(), dim=1).float())
    assert torch.equal(row_norms(matrix.bfloat16()), row_norms(matrix.bfloat16().float()))


def test_a_gain_changes_lengths_and_no_direction(matrix):
    values = values_of(matrix, "gain")
    assert values.shape == (numel("gain", matrix.shape),) == (6,)
    change = torch.tensor([0.0, 1.0, -2.0, 3.0, 0.5, -0.5])
    result = changed(matrix, values, change, "gain")
    torch.testing.assert_close(row_norms(result), values + change)
    torch.testing.assert_close(torch.cosine_similarity(result, matrix), torch.ones(6))
    assert torch.equal(result[0], matrix[0])


def test_the_norm_of_a_change_of_gains_is_that_of_the_matrix(matrix):
    values, change = values_of(matrix, "gain"), torch.tensor([0.1, -0.2, 0.3, 0.0, 0.7, -0.1])
    moved = changed(matrix, values, change, "gain") - matrix
    assert float(moved.norm()) == pytest.approx(float(change.norm()), rel=1e-5)
    assert float(matrix.norm()) == pytest.approx(float(values.norm()), rel=1e-5)


def test_a_row_of_zeros_stays(matrix):
    matrix[2] = 0.0
    result = changed(matrix, values_of(matrix, "gain"), torch.ones(6), "gain")
    assert torch.equal(result[2], matrix[2])
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(("parameterisation", "shape"), [("full", (4, 3)), ("delta", (4, 3)), ("gain", (12,))])
def test_everything_else_is_described_by_all_of_its_values(parameterisation, shape):
    weight = torch.arange(12.0).view(shape)
    assert numel(parameterisation, shape) == 12
    values = values_of(weight, parameterisation)
    assert torch.equal(values, torch.arange(12.0))
    assert torch.equal(changed(weight, values, torch.ones(12), parameterisation), weight + 1)
