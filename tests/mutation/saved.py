"""What wf.save writes: nets of every chart, bundles, deltas that are sent."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import weightfold as wf
from mutation.harness import Format
from weightfold.core.charted import Charted
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.nets import build
from weightfold.records import sealed
from weightfold.train.domains.bundles import open_bundle

CLASSES = {"birds": 3, "cars": 3}


def seal(content: bytes) -> bytes:
    """A record with the hash that belongs to it."""
    data = json.loads(content)
    return json.dumps(sealed(data)).encode() if isinstance(data, dict) else content


def model() -> nn.Sequential:
    """A small plain network with two layers of equal shapes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        )


def shake(net: nn.Module) -> nn.Module:
    """All parameters moved away from their start, the same way on every call."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


def images() -> Tensor:
    """Two images (2, 1, 8, 8)."""
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def outputs(net: nn.Module, **at: str) -> bytes:
    """What a net makes of `images`, bit for bit."""
    return net.eval()(images(), **at).numpy().tobytes()


def write_plain(folder: Path) -> None:
    """A network without charts."""
    wf.save(shake(model()), folder)


def write_charts(folder: Path) -> None:
    """A subspace over a mask over an expansion."""
    names = ("3.weight", "4.weight")
    expanded = wf.expand(model(), rate=2, seed=0, where="0")
    assert isinstance(expanded, Charted)
    masked = wf.mask(expanded, {f"model.{n}": torch.rand(4, 4, 3, 3) < 0.5 for n in names})
    wf.save(shake(wf.subspace(masked, dim=5, seed=3)), folder)


def read_net(folder: Path) -> bytes:
    """Outputs."""
    return outputs(wf.load(folder, model()))


def write_bundle(folder: Path) -> None:
    """Two domains of equal shapes, told as the command line tells them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = build("digitnet", num_classes=3, in_channels=1)
    plan = plan_sharing(plain, "bottom", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    net = shake(share(plain, CLASSES, plan))
    for name in CLASSES:
        net.about[name] = {
            "model": "digitnet",
            "class_names": ["a", "b", "c"],
            "image_shape": [1, 8, 8],
            "mean": [0.5],
            "std": [0.25],
        }
    wf.save(net, folder)


def read_bundle(folder: Path) -> object:
    """What the commands see of it, without a word of the user's on its network."""
    bundle, plain, spec = open_bundle(folder, None)
    net = bundle.load(plain)
    told = (spec, bundle.classes, bundle.class_names, bundle.preprocessing, bundle.sizes())
    deltas = [
        (tensor_name, tensor.numpy().tobytes())
        for name in bundle.domains
        for tensor_name, tensor in sorted(bundle.delta(name).items())
    ]
    plan = bundle.plan
    return (
        told,
        bundle.domains,
        deltas,
        plan and plan.fingerprint,
        [outputs(net, domain=name) for name in bundle.domains],
    )


def write_delta(folder: Path) -> None:
    """A bundle without a domain, and that domain as it is sent; notes of the user's beside."""
    write_bundle(folder / "bundle")
    Bundle(folder / "bundle").export_delta("cars", folder / "sent")
    Bundle(folder / "bundle").remove("cars")
    (folder / "bundle" / "notes.txt").write_text("mine")


def read_delta(folder: Path) -> object:
    """The bundle with the domain, in a copy of it; files that were there are as they were."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder / "bundle", Path(temporary) / "bundle"))
        before = {f.name: f.read_bytes() for f in copy.iterdir() if f.name != "manifest.json"}
        try:
            Bundle(copy).import_delta(folder / "sent", "cars")
        finally:
            assert before.items() <= {f.name: f.read_bytes() for f in copy.iterdir()}.items()
        return read_bundle(copy)


FORMATS = (
    Format("net", write_plain, read_net, seal=seal),
    Format("charts", write_charts, read_net, seal=seal),
    Format("bundle", write_bundle, read_bundle, seal=seal),
    Format("delta", write_delta, read_delta, mutated="sent/*", seal=seal),
)
