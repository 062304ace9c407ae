"""ACNet's branches: their function, their fusion, and the way there and back for whole models."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import weightfold as wf
from weightfold.nets import AsymmetricConv2d, asymmetric, asymmetric_deploy, build


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """`net` in float64 and eval mode, batch norms with statistics and affine values at random."""
    generator = torch.Generator().manual_seed(seed)
    net.double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.normal_(generator=generator)
            module.running_var.uniform_(0.2, 3.0, generator=generator)
    return net


def difference(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


def branches(layer: nn.Conv2d, **norm_options) -> AsymmetricConv2d:
    norm = nn.BatchNorm2d(layer.out_channels, **norm_options)
    made = AsymmetricConv2d(layer, norm, generator=torch.Generator().manual_seed(1))
    return randomise(made)


def embedded(made: AsymmetricConv2d, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What the branches should compute: three k x k convolutions, two of them mostly zeros."""
    total = torch.zeros(())
    middle = layer.kernel_size[0] // 2
    for branch, norm in (
        (made.square, made.square_norm),
        (made.horizontal, made.horizontal_norm),
        (made.vertical, made.vertical_norm),
    ):
        kernel = torch.zeros_like(layer.weight, dtype=torch.float64)
        height, width = branch.weight.shape[2:]
        rows = slice(None) if height > 1 else slice(middle, middle + 1)
        columns = slice(None) if width > 1 else slice(middle, middle + 1)
        kernel[:, :, rows, columns] = branch.weight.detach()
        plain = copy.deepcopy(layer).double()
        plain.weight.data, plain.bias = kernel, None
        y = plain(x)
        y = F.batch_norm(
            y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )
        total = total + y
    return total


@st.composite
def convolutions(draw) -> nn.Conv2d:
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.sampled_from([3, 5, 7]))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    sizes = st.integers(0, 4 if mode != "zeros" else 8)
    padding = draw(st.one_of(st.tuples(sizes, sizes), st.sampled_from(["same", "valid"])))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    if padding == "same":
        stride = (1, 1)
    return nn.Conv2d(
        4,
        4 * draw(st.integers(1, 2)),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )


@given(layer=convolutions(), height=st.integers(13, 17), width=st.integers(13, 17))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_fused_layer_and_branches_and_embedded_kernels_agree(
    layer: nn.Conv2d, height: int, width: int
):
    made = branches(layer)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, height, width, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        expected = embedded(made, layer, x)
        assert difference(made(x), expected) <= 1e-12
        fused = made.fuse()
        assert difference(fused(x), expected) <= 1e-12
    assert type(fused) is nn.Conv2d
    assert fused.weight.shape == layer.weight.shape
    for key in ("stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(fused, key) == getattr(layer, key)


@pytest.mark.parametrize("options", [{"affine": False}, {"eps": 0.1}, {}])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_and_batch_norm_of_the_original_kind(options: dict, bias: bool):
    layer = nn.Conv2d(3, 6, 5, padding=2, bias=bias)
    made = branches(layer, **options)
    convolution, norm = made.unmerge_norm()
    assert (convolution.bias is not None) == bias
    assert norm.state_dict().keys() == nn.BatchNorm2d(6, **options).state_dict().keys()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert difference(norm(convolution(x)), made(x)) <= 1e-12


def test_new_branches_are_added_to_the_given_layer():
    layer, norm = nn.Conv2d(3, 6, 5, groups=3, padding=2), nn.BatchNorm2d(6)
    nn.init.normal_(norm.running_mean)
    made = AsymmetricConv2d(layer, norm, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(2, 3, 8, 8)
    square = made.square_norm(made.square(x))
    torch.testing.assert_close(square, norm.eval()(layer(x)))
    assert difference(made(x), square) > 0.1
    # Weights k*k, k and k per filter and input channel of its group; weight and bias of 3 norms.
    assert sum(p.numel() for p in made.parameters()) == 6 * 1 * (25 + 5 + 5) + 3 * 2 * 6


def test_fused_in_float32_for_half_precision_weights():
    made = branches(nn.Conv2d(8, 8, 3, padding=1))
    exact = made.fuse().weight
    half = copy.deepcopy(made).to(torch.bfloat16).fuse().weight
    assert half.dtype == torch.bfloat16
    rounded_branches = copy.deepcopy(made).to(torch.bfloat16).double().fuse().weight
    # Rounding to 8 significant bits is off by 2^-8 at most; 2^-20 is for float32 on the way.
    torch.testing.assert_close(half.double(), rounded_branches, rtol=2**-8, atol=2**-20)
    assert difference(rounded_branches, exact) < 0.05


@pytest.mark.parametrize(
    ("layer", "norm", "says"),
    [
        (nn.Conv2d(2, 4, 4), nn.BatchNorm2d(4), "not square and odd"),
        (nn.Conv2d(2, 4, (3, 5)), nn.BatchNorm2d(4), "not square and odd"),
        (nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), "not square and odd"),
        (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(2), "2 channels in the batch norm, 4"),
        (nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), "not GroupNorm"),
        (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
        (nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4), "not ConvTranspose2d"),
    ],
)
def test_layers_of_another_kind_are_refused(layer: nn.Module, norm: nn.Module, says: str):
    with pytest.raises(ValueError, match=says):
        AsymmetricConv2d(layer, norm, generator=torch.Generator())


class Branchy(nn.Module):
    """A convolution whose output, in `reads`, something else than its batch norm reads as well."""

    def __init__(self, reads: str = ""):
        super().__init__()
        self.reads = reads
        self.norm = nn.BatchNorm2d(4)  # registered before its convolution
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.alone = nn.Conv2d(4, 4, 3, padding=1)
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.pointwise_norm = nn.BatchNorm2d(4)
        self.late = nn.Conv2d(4, 4, 3, padding=1)
        self.late_norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.twice_norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        x = F.relu(self.norm(y))
        if self.reads == "residual":
            x = x + y
        x = self.pointwise_norm(self.pointwise(self.alone(x)))
        x = self.late_norm(F.relu(self.late(x)))
        return self.twice_norm(self.twice(self.twice_norm(self.twice(x))))


MODELS = {
    "smallnet_a": (lambda: build("smallnet_a,kernel_size=5", num_classes=10), 32, 3),
    "digitnet": (lambda: build("digitnet", num_classes=10), 8, 2),
    "regnet": (lambda: build("regnet_y_400mf,small_image=true", num_classes=10), 8, 17),
    "mobilenet_v2": (lambda: build("mobilenet_v2,small_image=true", num_classes=10), 8, 18),
    "shufflenet": (lambda: build("shufflenet_v2_x0_5", num_classes=10), 32, 20),
    "branchy": (Branchy, 8, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_whole_model_there_and_back(name: str):
    make, size, count = MODELS[name]
    torch.manual_seed(0)
    model = randomise(make())
    before = copy.deepcopy(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    x = torch.randn(2, 3, size, size, dtype=torch.float64)

    net = asymmetric(model, example_input=x)
    assert type(net) is type(model)
    assert sum(isinstance(m, AsymmetricConv2d) for m in net.modules()) == count
    randomise(net, seed=3)
    plain = asymmetric_deploy(net)

    assert difference(plain(x), net(x)) <= 1e-10  # up to 20 layers, each to 1e-12
    assert [type(m) for m in plain.modules()] == kinds
    shapes = {key: (value.shape, value.dtype) for key, value in before.items()}
    assert {k: (v.shape, v.dtype) for k, v in plain.state_dict().items()} == shapes
    fresh = make().double().eval()
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(fresh(x), plain(x))
    assert [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training


def test_trained_branches_deploy():
    torch.manual_seed(0)
    model = build("digitnet", num_classes=10, in_channels=1)
    x, y = torch.randn(64, 1, 8, 8), torch.randint(10, (64,))
    net = asymmetric(model, example_input=x[:1])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
    net.eval()
    assert difference(asymmetric_deploy(net)(x), net(x)) < 1e-5


def test_deploy_after_copy_pickle_and_inside_a_larger_model():
    net = randomise(asymmetric(Branchy(), example_input=torch.zeros(1, 3, 8, 8)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for wrapped in (nn.Sequential(nn.Identity(), net), copy.deepcopy(net)):
        plain = asymmetric_deploy(pickle.loads(pickle.dumps(wrapped)))
        assert difference(plain(x), net(x)) <= 1e-12
        assert not any(isinstance(m, AsymmetricConv2d) for m in plain.modules())


def test_where_and_pairs_choose():
    model, x = build("smallnet_a", num_classes=10), torch.zeros(1, 3, 32, 32)

    def replaced(**options) -> list[str]:
        net = asymmetric(model, **options)
        return [n for n, m in net.named_modules() if isinstance(m, AsymmetricConv2d)]

    assert replaced(where="conv[23]", example_input=x) == ["conv2", "conv3"]
    assert replaced(pairs={"conv2": "bn2"}) == ["conv2"]
    assert replaced(pairs={"conv2": "bn2", "conv1": "bn1"}, where="conv1") == ["conv1"]
    assert replaced(pairs={"conv2": "bn2"}, example_input=x) == ["conv2"]


def test_the_seed_draws_the_new_branches_and_torch_s_generator_stays():
    model, x = build("digitnet", num_classes=10), torch.zeros(1, 3, 8, 8)
    state = torch.random.get_rng_state()
    first, again, other = (asymmetric(model, example_input=x, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.conv1.vertical.weight, again.conv1.vertical.weight)
    assert not torch.equal(first.conv1.vertical.weight, other.conv1.vertical.weight)
    assert torch.equal(first.conv1.square.weight, model.conv1.weight)
    bound = (5 * 3) ** -0.5  # PyTorch's default: uniform within 1 / sqrt(inputs * kernel)
    assert 0.5 * bound < first.conv1.vertical.weight.abs().max() <= bound


def test_a_frozen_convolution_stays_frozen():
    model = build("digitnet", num_classes=10)
    model.conv1.requires_grad_(False)
    net = asymmetric(model, example_input=torch.zeros(1, 3, 8, 8))
    assert not any(p.requires_grad for n, p in net.conv1.named_parameters() if "norm" not in n)
    plain = asymmetric_deploy(net)
    assert not plain.conv1.weight.requires_grad
    assert plain.conv2.weight.requires_grad


def test_mistakes():
    x = torch.zeros(1, 3, 8, 8)
    model = Branchy()
    with pytest.raises(ValueError, match="give example_input"):
        asymmetric(model)
    with pytest.raises(ValueError, match="'alone' matches no square convolution"):
        asymmetric(model, "alone", example_input=x)
    with pytest.raises(ValueError, match="has no square convolution"):
        asymmetric(nn.Conv2d(3, 4, 3), example_input=x)
    with pytest.raises(ValueError, match="does not fit: kernel_size"):
        asymmetric(model, pairs={"pointwise": "pointwise_norm"})
    with pytest.raises(ValueError, match="does not fit: a BatchNorm2d"):
        asymmetric(model, pairs={"conv": "nrom"})
    for convolution, norm in (("late", "late_norm"), ("alone", "pointwise_norm")):
        with pytest.raises(ValueError, match=f"does not belong to convolution '{convolution}'"):
            asymmetric(model, pairs={convolution: norm}, example_input=x)
    with pytest.raises(ValueError, match="'norm' does not belong to convolution 'conv' alone"):
        asymmetric(Branchy("residual"), example_input=x)
    with pytest.raises(ValueError, match="no AsymmetricConv2d"):
        asymmetric_deploy(model)
    net = asymmetric(build("resnet18", num_classes=10), example_input=torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="the place of its batch norm is not in this model"):
        asymmetric_deploy(net.conv1)


def test_tied_layers_are_left_alone_or_refused():
    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)),
        *(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)),
        *(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)),
    )
    model[2].weight = model[0].weight
    net = asymmetric(model, example_input=torch.zeros(1, 3, 8, 8))
    assert [type(m) is AsymmetricConv2d for m in net][::2] == [False, False, True]
    assert net[2].weight is net[0].weight
    with pytest.raises(ValueError, match="shares a parameter"):
        asymmetric(model, pairs={"0": "1"})


def test_a_convolution_with_two_batch_norms_is_left_alone():
    class Domains(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            self.last, self.last_norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.last_norm(self.last(self.norms[0](x) + self.norms[1](x)))

    net = asymmetric(Domains(), example_input=torch.zeros(1, 3, 8, 8))
    assert (type(net.conv), type(net.last)) == (nn.Conv2d, AsymmetricConv2d)


def test_a_charted_net_is_refused():
    net = wf.expand(build("digitnet", num_classes=10), rate=2)
    with pytest.raises(TypeError, match="Charted"):
        asymmetric(net, example_input=torch.zeros(1, 3, 8, 8))
