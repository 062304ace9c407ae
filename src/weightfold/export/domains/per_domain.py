"""An ONNX graph for each domain, all of which refer to one file of shared weights."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from torch import Tensor, nn

from weightfold.core.part_file import file_stem
from weightfold.core.slots import Slots, replace_module
from weightfold.export.extras import need
from weightfold.export.layers import Joined, layer_of
from weightfold.export.onnx_file import traced_onnx
from weightfold.export.routed import lowered
from weightfold.export.runners import onnx_runner
from weightfold.export.subject import Subject, frozen, plain_subject
from weightfold.files import BRIEFLY, locked, temporary_folder
from weightfold.methods.share.net import SharedNet
from weightfold.records import matching, read_record, write_record

INDEX = "domains.json"


@dataclass(frozen=True)
class PerDomainReport:
    """What was written; `dataclasses.asdict` of it is JSON.

    Attributes:
        folder: Of the files.
        shared_bytes: Size of the file of shared weights.
        own_bytes: Per domain, size of its file of weights.
        graph_bytes: Per domain, size of its .onnx file.
        max_relative_difference: Per domain, max |ONNX Runtime - torch| / max |torch|, the larger
            one over several batch sizes and inputs of standard deviation 1 and 1000.
    """

    folder: str
    shared_bytes: int
    own_bytes: dict[str, int]
    graph_bytes: dict[str, int]
    max_relative_difference: dict[str, float]


WEIGHTS = matching(r"[A-Za-z0-9_-]+-[0-9a-f]{16}\.safetensors", "name of weights")
GRAPH = matching(r"[A-Za-z0-9_-]+\.onnx", "name of a graph")


class Row(TypedDict):
    """A domain's files."""

    graph: Annotated[str, GRAPH]
    weights: Annotated[str, WEIGHTS]


class Listed(TypedDict):
    """What "domains.json" holds, as far as it is read: the files that another export removes."""

    shared: Annotated[str, WEIGHTS]
    domains: dict[str, Row]


def to_onnx_per_domain(
    net: nn.Module,
    example_input: Tensor | Mapping[str, Tensor],
    folder: str | Path,
    *,
    tolerance: float = 1e-5,
) -> PerDomainReport:
    """Write "birds.onnx", "cars.onnx", ...: plain networks whose shared weights are on disk once.

    Weights are external data in safetensors files: one of what domains share, one of each domain's
    own, all named by their content. Batch norm and the filters of a layer that has both sorts stay
    apart in the file; ONNX Runtime joins and folds them when it loads it. "domains.json" lists the
    files; those that an earlier export listed and this one does not need are removed. Each graph
    has the input "images" (B, C, H, W) and the output "logits" (B, classes of the domain).

    Args:
        net: A SharedNet, or charts on one; left unchanged and exported in eval mode.
        example_input: Floating point (B, C, H, W), or one for each domain by name; shape and dtype
            count, not the values.
        folder: Made if missing. Files get their names when all graphs have been checked.
        tolerance: Largest relative difference allowed between ONNX Runtime and torch.

    Raises:
        ImportError: The extra is not installed (`weightfold[export]`).
        TypeError: `net` is no SharedNet, or an example no floating-point tensor.
        KeyError: `example_input` does not name every domain and no other.
        ValueError: The net does not take the shape of an example, or the "domains.json" that is
            there is damaged.
        ExportError: torch could not export a domain (the cause is attached), or a file computes
            something else. Nothing is written then.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    shared: Any = frozen(lowered(net))
    examples = _examples(shared, example_input)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _listed(folder)  # a damaged one is told of before the work
    with temporary_folder(folder / INDEX) as temporary:
        writer = _Writer(shared, temporary)
        differences = {}
        for name, example in examples.items():
            path = writer.write(name, example)
            found = writer.subjects[name].check(path.name, onnx_runner(path), tolerance)
            differences[name] = max(found.values())
        index = writer.index()
        with locked(folder, BRIEFLY):
            _publish(temporary, folder, index, _listed(folder))
    files = index["domains"]
    return PerDomainReport(
        folder=str(folder),
        shared_bytes=(folder / index["shared"]).stat().st_size,
        own_bytes={n: (folder / f["weights"]).stat().st_size for n, f in files.items()},
        graph_bytes={n: (folder / f["graph"]).stat().st_size for n, f in files.items()},
        max_relative_difference=differences,
    )


def _examples(net: SharedNet, given: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(net.domains, given)
    if set(given) != set(net.domains):
        raise KeyError(
            f"example_input is for {', '.join(given)}; the domains are {', '.join(net.domains)}"
        )
    return {name: given[name] for name in net.domains}


def _publish(temporary: Path, folder: Path, index: Mapping[str, Any], old: set[str]) -> None:
    """Move the files to their names, those that others refer to first, and drop old ones."""
    for file in sorted(temporary.iterdir(), key=lambda f: f.suffix == ".onnx"):
        file.replace(folder / file.name)
    write_record(folder / INDEX, index)
    for name in old - _files(index):
        (folder / name).unlink(missing_ok=True)


def _listed(folder: Path) -> set[str]:
    """Names of the files of the export that is in a folder."""
    index = folder / INDEX
    return _files(read_record(index, Listed)) if index.exists() else set()


def _files(index: Mapping[str, Any]) -> set[str]:
    rows = index["domains"].values()
    return {index["shared"], *(row["weights"] for row in rows), *(row["graph"] for row in rows)}


@dataclass
class _Writer:
    """Writes the graphs of a net into a folder, each kind of graph traced once."""

    net: SharedNet
    folder: Path
    shared: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    traced: dict[Any, Any] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)

    def write(self, domain: str, example: Tensor) -> Path:
        """The .onnx file of a domain, and the files it refers to."""
        import onnx
        import onnx_ir

        plain = plain_subject(self.net.deploy(domain=domain), example)
        self.subjects[domain], images = plain, plain.inputs["images"]
        model, own = _with_parts(self.net, domain)
        key = (self.net.classes[domain], tuple(images.shape), images.dtype)
        if key not in self.traced:
            self.traced[key] = _graph(replace(plain, net=model))
        graph = self.traced[key]
        held = {n: t for n, t in Slots.of(model).tensors.items() if n in graph.graph.initializers}
        self.shared = self._weights("shared", {n: t for n, t in held.items() if n not in own})
        weights = self._weights(domain, {n: t for n, t in held.items() if n in own})
        for file in (self.shared, weights):
            _refer(graph, self.folder, file)
        about = self.net.about.get(domain)
        told = {"domain": domain, "about": json.dumps(about), **plain.metadata}
        graph.metadata_props.clear()
        graph.metadata_props.update(told)
        path = self.folder / f"{file_stem(domain)}.onnx"
        onnx_ir.save(graph, path)
        onnx.checker.check_model(path, full_check=True)
        self.rows[domain] = {
            "graph": path.name,
            "weights": weights,
            "classes": self.net.classes[domain],
            "input": list(images.shape[1:]),
            "about": about,
        }
        return path

    def index(self) -> dict[str, Any]:
        """What goes into "domains.json"."""
        return {"shared": self.shared, "domains": self.rows}

    def _weights(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        from safetensors.torch import save

        content = save({n: t.detach().contiguous() for n, t in tensors.items()})
        file = f"{file_stem(name)}-{blake2b(content, digest_size=8).hexdigest()}.safetensors"
        if not (self.folder / file).exists():
            (self.folder / file).write_bytes(content)
        return file


@torch.no_grad()
def _with_parts(net: SharedNet, domain: str) -> tuple[nn.Module, set[str]]:
    """The network of a domain, its shared filters apart, and the names of the domain's tensors."""
    sharing = net.sharing
    kept = [*net.model.parameters(), *net.model.buffers()]
    model = copy.deepcopy(net.model, {id(tensor): tensor for tensor in kept})
    for path in sharing.layout.names:
        replace_module(model, path, layer_of(sharing, path, domain))
    orders = [b for m in model.modules() if isinstance(m, Joined) for b in m.buffers()]
    shared = {id(t) for t in (*kept, *orders, *sharing.shared.parameters())}
    tensors = Slots.of(model.eval()).tensors
    return model, {name for name, tensor in tensors.items() if id(tensor) not in shared}


def _graph(subject: Subject) -> Any:
    """An onnx_ir.Model, its initializers constants and the network's tensors as they are.

    Optimized only where no tensor takes part; without that, shapes computed at run time keep ONNX
    Runtime from folding batch norm.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    program = traced_onnx(subject, optimize=False)
    graph = program.model
    tensors = set(graph.graph.initializers)

    def foldable(node: Any) -> bool | None:
        return False if any(v is not None and v.name in tensors for v in node.inputs) else None

    fold_constants(graph, onnx_shape_inference=True, should_fold=foldable)
    RemoveUnusedNodesPass()(graph)
    return graph


def _refer(graph: Any, folder: Path, file: str) -> None:
    """Let the initializers that a safetensors file holds refer to it."""
    import onnx_ir

    with (folder / file).open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        value = graph.graph.initializers[name]
        value.const_value = onnx_ir.ExternalTensor(
            file,
            8 + length + begin,
            end - begin,
            value.const_value.dtype,
            shape=value.const_value.shape,
            name=name,
            base_dir=folder,
        )
