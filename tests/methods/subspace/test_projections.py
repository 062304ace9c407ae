import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightfold.methods.subspace.projections import KINDS, make
from weightfold.methods.subspace.projections.base import least_squares
from weightfold.methods.subspace.projections.hadamard import (
    byte_signs,
    sylvester,
    transform_rows,
    unpack,
)

DOUBLE = torch.zeros((), dtype=torch.float64)


def drawn(kind, size, dim, seed=0, like=DOUBLE):
    projection = make(kind, size, dim, like)
    projection.draw(seed)
    return projection


@st.composite
def sizes(draw, largest=300):
    size = draw(st.integers(1, largest))
    return size, draw(st.integers(1, size))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(shape=sizes(), seed=st.integers(0, 10))
def test_adjoint_by_dot_product(kind, shape, seed):
    size, dim = shape
    projection = drawn(kind, size, dim, seed)
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(dim, generator=generator, dtype=torch.float64)
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    forward, backward = projection(psi) @ theta, psi @ projection.adjoint(theta)
    scale = psi.norm() * theta.norm() * dim**0.5
    assert abs(forward - backward) <= 1e-13 * scale


@pytest.mark.parametrize("kind", ["srht", "dense", "sparse"])
@settings(deadline=None)
@given(shape=sizes())
def test_columns_have_norm_one(kind, shape):
    matrix = drawn(kind, *shape).matrix()
    # Dense and sparse entries are float32 values.
    atol = 1e-12 if kind == "srht" else 1e-6
    torch.testing.assert_close(
        matrix.norm(dim=0), torch.ones(shape[1], dtype=torch.float64), rtol=0, atol=atol
    )


@settings(deadline=None)
@given(shape=sizes())
def test_srht_is_orthogonal_within_its_bound_and_of_full_rank(shape):
    size, dim = shape
    matrix = drawn("srht", size, dim).matrix()
    gram = matrix.T @ matrix
    length = 2 ** (dim - 1).bit_length()
    rest = size % length
    bound = min(rest, length - rest) / size
    assert (gram - torch.eye(dim, dtype=torch.float64)).abs().max() <= bound + 1e-12
    assert torch.linalg.matrix_rank(matrix) == dim


def test_srht_entries_are_signs_of_one_size():
    matrix = drawn("srht", 100, 7).matrix()
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, 0.1), rtol=0, atol=1e-15)


def test_srht_keeps_one_bit_a_row():
    projection = make("srht", 199_210, 750, torch.zeros(()))
    projection.draw(0)
    assert projection.packed.dtype == torch.uint8
    assert projection.packed.numel() == -(-199_210 // 8)
    rest = sum(b.numel() for n, b in projection.named_buffers() if n != "packed")
    assert rest == 256 * 8 + 64 * 64
    assert not projection.state_dict()


def test_fastfood_columns_have_norm_one_before_they_are_cut():
    matrix = drawn("fastfood", 256, 20).matrix()
    expected = torch.ones(20, dtype=torch.float64)
    torch.testing.assert_close(matrix.norm(dim=0), expected, rtol=0, atol=1e-6)
    cut = drawn("fastfood", 200, 50).matrix().norm(dim=0)
    assert abs(cut.square().mean() - 1) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_make_the_projection(kind):
    one, again, other = (drawn(kind, 90, 11, seed).matrix() for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_projections_is_each_alone(kind):
    several = [drawn(kind, 300, 40, seed) for seed in range(3)]
    _, buffers = torch.func.stack_module_state(several)
    psi = torch.randn(3, 40, dtype=torch.float64)
    stacked = torch.func.vmap(lambda b, v: torch.func.functional_call(several[0], b, (v,)))
    alone = torch.stack([p(v) for p, v in zip(several, psi, strict=True)])
    torch.testing.assert_close(stacked(buffers, psi), alone, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(digits=st.integers(0, 9), width=st.integers(1, 3))
def test_transform_is_the_hadamard_matrix(digits, width):
    size = 2**digits
    x = torch.randn(size, width, dtype=torch.float64)
    matrix = sylvester(x, size)
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(transform_rows(x, sylvester(x)), matrix @ x, rtol=0, atol=1e-11)


def test_bytes_unpack_to_their_bits():
    signs = unpack(torch.tensor([0b10000001, 0], dtype=torch.uint8), byte_signs(DOUBLE))
    assert signs.tolist() == [-1, 1, 1, 1, 1, 1, 1, -1, *[1] * 8]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(shape=sizes(60))
def test_least_squares(kind, shape):
    projection = drawn(kind, *shape)
    matrix = projection.matrix()
    target = torch.randn(shape[0], dtype=torch.float64)
    psi = least_squares(projection, target)
    # The gradient of |P psi - target|^2 vanishes there.
    slope = matrix.T @ (matrix @ psi - target)
    assert slope.norm() <= 1e-8 * target.norm()


@pytest.mark.parametrize(
    ("kind", "dim", "words"),
    [("srth", 3, "kind='srth'"), ("srht", 0, "dim=0"), ("srht", 11, "dim=11")],
)
def test_wrong_arguments(kind, dim, words):
    with pytest.raises(ValueError, match=words):
        make(kind, 10, dim, DOUBLE)
