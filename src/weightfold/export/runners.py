"""A network, an .onnx or a .pt2 file as one function from images to outputs."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from weightfold.core.preprocessing import Preprocessing
from weightfold.export.extras import need

PREPROCESSING = "preprocessing"
"""Name, in a file's metadata, of the JSON that says how the network is fed."""

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


def file_preprocessing(path: str | Path) -> Preprocessing | None:
    """How the network in an .onnx, .pt2 or .safetensors file of ours is fed; None: it does not say.

    Raises:
        FileNotFoundError: `path` is missing.
        ValueError: It is no such file, or what it says is damaged.
    """
    path = Path(path)
    readers = {".onnx": _onnx_text, ".pt2": _program_text, ".safetensors": _weights_text}
    if path.suffix not in readers:
        raise ValueError(f"path={str(path)!r} must end in {', '.join(readers)}")
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is missing")
    try:
        record = json.loads(readers[path.suffix](path) or "{}")
        return Preprocessing.of_record(record)
    except Exception as error:  # of the format's own library, whatever it is
        raise ValueError(f"{path} does not say as it should how it is fed: {error}") from error


def _onnx_text(path: Path) -> str | None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return next((p.value for p in model.metadata_props if p.key == PREPROCESSING), None)


def _program_text(path: Path) -> str | None:
    extra = {f"{PREPROCESSING}.json": ""}
    torch.export.load(path, extra_files=extra)
    return extra[f"{PREPROCESSING}.json"]


def _weights_text(path: Path) -> str | None:
    with safe_open(path, "pt") as opened:
        return (opened.metadata() or {}).get(PREPROCESSING)


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
