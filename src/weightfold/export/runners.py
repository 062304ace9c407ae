"""A network, an .onnx or a .pt2 file as one function from images to outputs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.export.extras import need

Runner = Callable[..., Tensor]
"""Images (B, ...), of nets with domains also ids (B,), to outputs on the CPU."""


def torch_runner(module: nn.Module) -> Runner:
    """Runs a module as it stands (put it in eval mode first), without gradients, on its device."""
    device = next((t.device for t in module.state_dict().values()), torch.device("cpu"))

    @torch.no_grad()
    def run(*inputs: Tensor) -> Tensor:
        output = module(*(x.to(device) for x in inputs))
        return output.cpu() if isinstance(output, Tensor) else output

    return run


def onnx_runner(path: str | Path) -> Runner:
    """Runs an .onnx file in ONNX Runtime on the CPU, with as many threads as torch has now.

    Raises:
        ImportError: ONNX Runtime is not installed (`weightfold[export]`).
        FileNotFoundError: `path` is missing.
    """
    need("export", "onnxruntime")
    import onnxruntime

    if not Path(path).is_file():
        raise FileNotFoundError(f"path={str(path)!r} is missing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {n: x.numpy(force=True) for n, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def program_runner(path: str | Path) -> Runner:
    """Runs a .pt2 file that `to_exported_program` wrote.

    Raises:
        FileNotFoundError: `path` is missing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path={str(path)!r} is missing")
    # Registers the operators of quantized programs.
    import torch.ao.quantization.fx._decomposed

    return torch_runner(torch.export.load(path).module())


def accuracy(run: Runner, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of images whose largest output is their label's; a tie goes to the first.

    Args:
        run: Images to outputs (B, classes).
        batches: Pairs of images (B, ...) and labels int64 (B,).

    Raises:
        ValueError: `batches` is empty.
    """
    return accuracies({"run": run}, batches)["run"]


def accuracies(
    runs: Mapping[str, Runner], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """`accuracy` of several runners in one pass over the batches."""
    correct = dict.fromkeys(runs, 0)
    seen = 0
    for images, labels in batches:
        seen += len(labels)
        for name, run in runs.items():
            correct[name] += int((run(images).argmax(dim=1) == labels.cpu()).sum())
    if not seen:
        raise ValueError("batches is empty; give pairs of images and labels")
    return {name: count / seen for name, count in correct.items()}
