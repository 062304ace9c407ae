import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

from weightfold.folding import fold_batch_norm, foldable


@torch.no_grad()
def trained(model: nn.Module) -> nn.Module:
    """Statistics and affine of each batch norm moved, as training moves them."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            tensors = (module.running_mean, module.running_var, module.weight, module.bias)
            for tensor in tensors:
                if tensor is not None:
                    tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@torch.no_grad()
def compare(model: nn.Module, images: Tensor) -> nn.Module:
    """The folded copy, which computes what the model does in eval mode."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert type(folded) is type(model) and not folded.training
    # Relative to the largest output: sums over layers of products, in another order.
    tolerance = 1e-10 if images.dtype == torch.float64 else 1e-5
    right = model.eval()(images)
    assert right.std() > 0
    assert (folded(images) - right).abs().max() <= tolerance * right.abs().max()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    return folded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "left"),
    [("mobilenet_v2", 0), ("resnet18", 0), ("shufflenet_v2_x0_5", 0), ("densenet121", 62)],
)
def test_torchvision(name, left, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = trained(torchvision.models.get_model(name)).to(dtype)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert norms(model.train()) > 0
    assert norms(compare(model, images)) == left


class Dense(nn.Module):
    """As DenseNet: a batch norm of what is joined, one behind an activation, one behind a conv."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(7, 4, 1, bias=False)
        self.joined, self.after, self.behind = (nn.BatchNorm2d(n) for n in (7, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x[..., 1:-1, 1:-1], self.conv1(x)], 1)
        return self.behind(self.after(self.conv2(self.joined(y).relu())).relu())


class Twice(nn.Module):
    """A convolution that runs twice, and one whose output two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.read = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.conv(self.norm1(self.conv(x))))
        y = self.read(x)
        return self.norm3(y) + y


class Sides(nn.Module):
    """Batch norms without affine, without statistics, of three dimensions, of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4, affine=False))
        self.batch = nn.Sequential(
            nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4, track_running_stats=False), nn.Flatten()
        )
        self.linear = nn.Sequential(nn.Linear(108, 5), nn.BatchNorm1d(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.batch(self.conv(x)))


@pytest.mark.parametrize(
    ("model", "shape", "left"),
    [(Dense(), (6, 6), 2), (Twice(), (6, 6), 3), (Sides(), (4, 4, 4), 2)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_stays(model, shape, left, dtype):
    model = trained(model).to(dtype)
    images = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert norms(compare(model, images)) == left


class Reused(nn.Module):
    """Reads the convolution's kernel a second time, past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight)


def test_a_kernel_that_is_read_elsewhere_stays():
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert norms(compare(trained(Reused()), images)) == 1


def test_layers_with_hooks_or_parametrizations_stay():
    images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    hooked, normed = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    hooked[0].register_forward_hook(lambda layer, args, output: output.relu())
    weight_norm(normed[0])
    assert norms(compare(trained(hooked), images)) == norms(compare(trained(normed), images)) == 1


def test_pairs_are_named():
    assert foldable(Dense()) == [("conv2", "after")]
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train()
    assert foldable(model) == [("0", "1")]
    assert model.training


def test_a_network_that_fx_cannot_trace():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"Branching is none .* leave fold_bn=False"):
        fold_batch_norm(Branching())
