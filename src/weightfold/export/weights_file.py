"""safetensors: the plain network's state_dict, loaded again in plain torch and compared."""

from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.core.tensor_file import write_tensors
from weightfold.export.files import checked, staged
from weightfold.export.report import ExportReport
from weightfold.export.runners import torch_runner
from weightfold.export.subject import OneOutput, frozen, plain_subject
from weightfold.methods.share.net import SharedNet
from weightfold.train.checkpoint import load_weights


def to_safetensors(
    net: nn.Module, example_input: Tensor, path: str | Path, *, tolerance: float = 1e-5
) -> ExportReport:
    """Write a network's weights under the names of the plain architecture.

    Load them into it with `model.load_state_dict(safetensors.torch.load_file(path))`. How the
    network is fed (`weightfold.Preprocessing`), if it says so, is JSON in the file's header.

    >>> import tempfile, torch, weightfold as wf
    >>> from safetensors.torch import load_file
    >>> model, folder = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), tempfile.mkdtemp()
    >>> net = wf.expand(model, rate=2)
    >>> path = f"{folder}/plain.safetensors"
    >>> _ = wf.export.to_safetensors(net, torch.zeros(1, 1, 5, 5), path)
    >>> model.load_state_dict(load_file(path))
    <All keys matched successfully>

    Args:
        net: Takes one tensor and returns one; a Charted net is deployed. Left unchanged.
        example_input: Floating point (B, ...); its shape and dtype count, not its values.
        path: The file to write, ending in .safetensors; its folder exists.
        tolerance: Largest relative difference allowed between the network that has loaded the file
            and `net`.

    Raises:
        FileNotFoundError: The folder of `path` is missing.
        TypeError: `example_input` or the network's output is not one floating-point tensor, or
            `net` is a SharedNet.
        ValueError: The network does not take the shape of `example_input`, or `path` does not end
            in .safetensors.
        ExportError: A plain network with these weights computes something else. Nothing is written.
    """
    if checked(path).suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r} must end in .safetensors")
    if isinstance(net, SharedNet):
        raise TypeError("net has several domains; give one's, net.deploy(domain=...)")
    plain = net.deploy(net.default_context()) if isinstance(net, Charted) else net
    subject = plain_subject(plain, example_input)
    with staged(path) as temporary:
        named = plain.net if isinstance(plain, OneOutput) else plain
        write_tensors(temporary, named.state_dict(), subject.metadata)
        again = frozen(subject.net).apply(_blank)
        load_weights(again.net if isinstance(again, OneOutput) else again, temporary)
        differences = subject.check(f"{Path(path).name} in torch", torch_runner(again), tolerance)
    return ExportReport(str(path), Path(path).stat().st_size, differences)


@torch.no_grad()
def _blank(module: nn.Module) -> None:
    """Overwrite all weights, so that only those of the file can give the right outputs."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
