"""Writes a small net of each kind with the installed version, for later versions to load.

python write.py FOLDER: FOLDER/<kind>/ is what wf.save wrote, FOLDER/outputs.safetensors what the
nets give on `inputs()`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import weightfold as wf


def model() -> nn.Module:
    """The network that all kinds are made of."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 5, padding=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def inputs() -> Tensor:
    """Images (2, 2, 6, 6)."""
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(2))


def run(net: nn.Module) -> dict[str, Tensor]:
    """Outputs in eval mode, of each domain if the net has some."""
    net = net.eval()
    inner = net
    while not hasattr(inner, "domains") and hasattr(inner, "charts"):
        inner = inner.model
    with torch.no_grad():
        if hasattr(inner, "domains"):
            return {d: net(inputs(), at={"domain": d}) for d in inner.domains}
        return {"all": net(inputs())}


def nets() -> dict[str, nn.Module]:
    """A net of each kind."""
    drawn = torch.Generator().manual_seed(3)
    masks = {
        name: torch.rand(p.shape, generator=drawn) < 0.5
        for name, p in model().named_parameters()
        if p.dim() > 1
    }
    plan = wf.plan_sharing(model(), "bottom", 0.5, example_input=inputs())

    def shared() -> nn.Module:
        return wf.share(model(), {"birds": 2, "cars": 3}, plan, seed=4)

    return {
        "plain": model(),
        "expanded-cl": wf.expand(model(), rate=2, conv="cl", linear="fc", where=None, seed=0),
        "expanded-ck": wf.expand(model(), rate=2, conv="ck", execution="chain", seed=0),
        "subspace": wf.subspace(model(), 5, seed=3),
        "subspace-dense": wf.subspace(model(), 5, kind="dense", seed=3),
        "mask": wf.mask(model(), masks),
        "mask-live": wf.mask(model(), masks, live=True),
        "subspace-of-expanded": wf.subspace(wf.expand(model(), rate=2, seed=0), 4, seed=5),
        "shared": shared(),
        "subspace-of-shared": wf.subspace(shared(), 4, seed=5, where="domains.cars.*"),
    }


def main(folder: Path) -> None:
    """Write everything."""
    outputs = {}
    for kind, net in nets().items():
        drawn = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=drawn))
            for name, buffer in net.named_buffers():
                if name.endswith("running_var"):
                    buffer.add_(0.5)
        wf.save(net, folder / kind)
        outputs |= {f"{kind}/{part}": value.contiguous() for part, value in run(net).items()}
    save_file(outputs, folder / "outputs.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
