import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from weightfold.probes.tickets.prune import (
    Pruning,
    full_masks,
    magnitude_masks,
    own_shares,
    prunable,
    random_masks,
    share,
    surviving,
)

# Few distinct values, so that ties and zeros are the rule.
values = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])
shares = st.floats(0, 1)


@st.composite
def cases(draw):
    """Tensors of several shapes and masks of part of them."""
    weights, masks = {}, {}
    for name in draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")])):
        shape = draw(st.sampled_from([(1, 1), (3, 5), (2, 3, 2), (7, 4)]))
        count = torch.Size(shape).numel()
        weights[name] = torch.tensor(draw(st.lists(values, min_size=count, max_size=count))).view(
            shape
        )
        masks[name] = torch.tensor(
            draw(st.lists(st.booleans(), min_size=count, max_size=count))
        ).view(shape)
    return weights, masks


def check(weights, before, after, fraction):
    """Of `before` exactly round(fraction * alive) are gone, and none is larger than one left."""
    alive = int(before.sum())
    gone = before & ~after
    assert not (after & ~before).any()
    assert int(gone.sum()) == round(fraction * alive)
    if gone.any() and after.any():
        assert weights[gone].abs().max() <= weights[after].abs().min()
        # Among equals of the last magnitude the first went.
        edge = weights[gone].abs().max()
        tied_gone = (gone & (weights.abs() == edge)).flatten().nonzero()
        tied_left = (after & (weights.abs() == edge)).flatten().nonzero()
        assert len(tied_left) == 0 or tied_gone.max() < tied_left.min()


@given(cases(), shares)
def test_layer_scope_prunes_exact_counts_of_each_tensor(case, fraction):
    weights, masks = case
    pruned = magnitude_masks(weights, masks, fraction)
    for name, weight in weights.items():
        check(weight, masks[name], pruned[name], fraction)


@given(cases(), shares)
def test_global_scope_prunes_the_exact_count_of_all(case, fraction):
    weights, masks = case
    pruned = magnitude_masks(weights, masks, fraction, scope="global")

    def joint(tensors):
        return torch.cat([tensors[name].flatten() for name in weights])

    check(joint(weights), joint(masks), joint(pruned), fraction)


@given(cases(), st.integers(0, 2**40))
def test_random_masks_have_the_counts_of_each_tensor(case, seed):
    _, masks = case
    drawn = random_masks(masks, seed)
    again = random_masks(masks, seed)
    for name, mask in masks.items():
        assert drawn[name].shape == mask.shape
        assert drawn[name].sum() == mask.sum()
        assert torch.equal(drawn[name], again[name])


def test_random_masks_differ_by_seed_and_reach_every_place():
    masks = {"w": torch.arange(40).view(5, 8) < 20}
    drawn = torch.stack([random_masks(masks, seed)["w"] for seed in range(60)])
    assert drawn.any(dim=0).all() and (~drawn).any(dim=0).all()


def test_no_weight_too_many():
    """With n = round(0.2 * 10) = 2 the two smallest go, not three."""
    weights = {"w": torch.tensor([[5.0, -1.0, 3.0, 0.2, 9.0], [8.0, 7.0, -6.0, 4.0, 2.0]])}
    pruned = magnitude_masks(weights, full_masks(weights), 0.2)
    assert (~pruned["w"]).nonzero().tolist() == [[0, 1], [0, 3]]


def test_lenet_leaves_the_papers_shares():
    """51.3% and 21.1% of weights after 3 and 7 rounds of 20%, 10% of the last layer."""
    shapes = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    pruning = Pruning(fractions={"fc3": 0.1})
    masks, left = full_masks(weights), []
    for level in range(1, 8):
        before, masks = masks, pruning.masks(level, weights, masks)
        for name, mask in masks.items():
            alive = int(before[name].sum())
            assert int(mask.sum()) == alive - round(pruning.fractions.get(name, 0.2) * alive)
        left.append(f"{share(masks):.1%}")
    assert (left[2], left[6]) == ("51.3%", "21.1%")


def test_one_shot_starts_from_the_full_network():
    weights = {"w": torch.arange(1.0, 101.0).view(10, 10)}
    none = {"w": torch.zeros(10, 10, dtype=torch.bool)}
    masks = Pruning(0.5, "one-shot").masks(2, weights, none)
    assert surviving(masks) == 25
    assert masks["w"].flatten()[75:].all()


def test_fractions_take_names_globs_and_texts():
    weights = {
        "conv1.weight": torch.ones(1),
        "fc.weight": torch.ones(1),
        "out.weight": torch.ones(1),
    }
    assert own_shares(weights, {"*": 0.15, "out.*": 0.1}) == {
        "conv1.weight": 0.15,
        "fc.weight": 0.15,
        "out.weight": 0.1,
    }
    assert own_shares(weights, ("out.weight:0.1",)) == {"out.weight": 0.1}
    with pytest.raises(ValueError, match=r"'fc4.weight' matches no tensor that is pruned"):
        own_shares(weights, {"fc4.weight": 0.1})
    with pytest.raises(ValueError, match=r"'fc.weight=0.1'; give texts like 'fc3.weight:0.1'"):
        own_shares(weights, ["fc.weight=0.1"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.embed = nn.Embedding(4, 2)
        self.fc = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2, 2))


def test_only_weights_of_layers_are_pruned_unless_asked():
    assert list(prunable(Net())) == ["conv.weight", "fc.weight"]
    assert list(prunable(Net(), ["scale", "fc.weight"])) == ["scale", "fc.weight"]
    frozen = Net()
    frozen.conv.weight.requires_grad_(False)
    assert list(prunable(frozen)) == ["fc.weight"]
    with pytest.raises(ValueError, match="no trainable weight of a Linear layer"):
        prunable(nn.BatchNorm1d(3))


def test_bad_input_is_refused_by_name():
    weights = {"w": torch.ones(2, 2)}
    masks = full_masks(weights)
    with pytest.raises(ValueError, match=r"fraction=1\.5: a share to prune lies in"):
        magnitude_masks(weights, masks, 1.5)
    with pytest.raises(ValueError, match="scope='all': give 'layer' or 'global'"):
        magnitude_masks(weights, masks, 0.5, scope="all")
    with pytest.raises(ValueError, match="leave them out, or scope='layer'"):
        Pruning(scope="global", fractions={"w": 0.1})
    with pytest.raises(ValueError, match="fractions: 'v' is none of w"):
        magnitude_masks(weights, masks, 0.5, fractions={"v": 0.1})
    with pytest.raises(ValueError, match=r"give for 'w' a mask of shape \(2, 2\)"):
        magnitude_masks(weights, {"w": torch.ones(4, dtype=torch.bool)}, 0.5)
    with pytest.raises(ValueError, match="has NaN among its surviving weights"):
        magnitude_masks({"w": torch.full((2, 2), torch.nan)}, masks, 0.5)
    with pytest.raises(ValueError, match=r"w=1\.0: give the share a level prunes"):
        Pruning(fractions={"w": 1.0})
    with pytest.raises(ValueError, match="method='both': give 'iterative' or 'one-shot'"):
        Pruning(method="both")
