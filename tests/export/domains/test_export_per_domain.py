import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import weightfold as wf
from weightfold.export import ExportError
from weightfold.export.domains import to_onnx_per_domain
from weightfold.methods.share.net import SharedNet

EXAMPLE = torch.zeros(1, 3, 8, 8)


def shared_net(strategy="random", fraction=0.4, head="domain", cars=5) -> SharedNet:
    """Two domains of one number of classes, one of another; a depthwise layer, biases."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
    plan = wf.plan_sharing(model, strategy, fraction, example_input=EXAMPLE, head=head)
    net = wf.share(model, {"birds": 3, "cars": cars, "dogs": 3}, plan)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # Birds stay as they are, so that equal tensors of theirs differ in others.
        for name, tensor in net.sharing.domains.state_dict().items():
            if tensor.is_floating_point() and not name.startswith("birds"):
                tensor.add_(0.5 * torch.rand(tensor.shape, generator=generator))
    return net


def run(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def sizes(folder: Path, start: str) -> int:
    return sum(p.stat().st_size for p in folder.glob(f"{start}*.safetensors"))


def numbers(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(n).numel() for n in file.keys() if "order" not in n)  # noqa: SIM118


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    net, folder = shared_net(), tmp_path_factory.mktemp("net")
    return net, to_onnx_per_domain(net.train(), EXAMPLE, folder / "new"), folder / "new"


@pytest.mark.parametrize("domain", ["birds", "cars", "dogs"])
@pytest.mark.parametrize("count", [1, 7])
def test_onnx_runtime_computes_each_domain(exported, domain, count):
    net, report, folder = exported
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    found = run(folder / f"{domain}.onnx", x)
    torch.testing.assert_close(found, net.eval()(x, domain=domain), rtol=1e-5, atol=1e-5)
    assert report.max_relative_difference[domain] < 2e-6


def test_every_weight_is_on_disk_once(exported):
    net, report, folder = exported
    sharing = net.sharing
    (shared,) = folder.glob("shared-*")
    assert report.shared_bytes == shared.stat().st_size
    assert numbers(shared) == sum(p.numel() for p in sharing.shared.parameters())
    for name in net.domains:
        (own,) = folder.glob(f"{name}-*")
        state = sharing.domains[name].state_dict()
        kept = [t.numel() for key, t in state.items() if "num_batches_tracked" not in key]
        assert numbers(own) == sum(kept)
        assert report.own_bytes[name] == own.stat().st_size
        graph = onnx.load(folder / f"{name}.onnx", load_external_data=False)
        assert sum(len(t.raw_data) for t in graph.graph.initializer) < 512
    assert len(list(folder.iterdir())) == 1 + 3 + 3 + 1


def test_onnx_runtime_joins_filters_and_folds_batch_norm(exported, tmp_path):
    _, _, folder = exported
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(folder / "cars.onnx", options)
    optimized = onnx.load(tmp_path / "optimized.onnx", load_external_data=False)
    kinds = {node.op_type for node in optimized.graph.node}
    assert "FusedConv" in kinds
    assert not kinds & {"BatchNormalization", "Gather", "Expand"}, kinds


def test_index_and_metadata(exported):
    net, _, folder = exported
    index = json.loads((folder / "domains.json").read_text())
    assert {name: row["classes"] for name, row in index["domains"].items()} == net.classes
    assert index["domains"]["cars"]["input"] == [3, 8, 8]
    for row in index["domains"].values():
        assert (folder / row["weights"]).is_file() and (folder / index["shared"]).is_file()
    stored = {p.key: p.value for p in onnx.load(folder / "dogs.onnx").metadata_props}
    assert stored["domain"] == "dogs"


def test_a_second_export_replaces_the_first(tmp_path):
    """The domain that did not change keeps its file; files nothing refers to are gone."""
    net = shared_net("top", 0.5, cars=3)
    (tmp_path / "notes.txt").write_text("mine")
    to_onnx_per_domain(net, EXAMPLE, tmp_path)
    before = {p.name for p in tmp_path.iterdir()}
    net.remove_domain("dogs")
    with torch.no_grad():
        net.sharing.domains["cars"].get_submodule("8").bias.add_(1)
    to_onnx_per_domain(net, EXAMPLE, tmp_path)
    after = {p.name for p in tmp_path.iterdir()}
    gone, new = before - after, after - before
    assert sorted(n.split("-")[0] for n in gone) == ["cars", "dogs", "dogs.onnx"]
    assert [n.split("-")[0] for n in new] == ["cars"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_domains_of_other_sizes_and_a_shared_classifier(tmp_path):
    net = shared_net(head="shared", cars=3).eval()
    examples = {n: torch.zeros(1, 3, s, s) for n, s in zip(net.domains, (8, 12, 8), strict=True)}
    to_onnx_per_domain(net, examples, tmp_path)
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = run(tmp_path / "cars.onnx", x)
    torch.testing.assert_close(found, net(x, domain="cars"), rtol=1e-5, atol=1e-5)
    assert sum("8.weight" in k for p in tmp_path.glob("*.safetensors") for k in keys(p)) == 1


def keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def test_what_is_refused(tmp_path, monkeypatch):
    net, folder = shared_net(), tmp_path / "new"
    with pytest.raises(TypeError, match="net is Conv2d, not a SharedNet"):
        to_onnx_per_domain(nn.Conv2d(3, 3, 1), EXAMPLE, folder)
    with pytest.raises(KeyError, match="is for birds; the domains are birds, cars, dogs"):
        to_onnx_per_domain(net, {"birds": EXAMPLE}, folder)
    with pytest.raises(ExportError, match=r"birds\.onnx differs from torch"):
        to_onnx_per_domain(net, EXAMPLE, folder, tolerance=-1)
    assert not list(folder.iterdir())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'weightfold\[export\]'"):
        to_onnx_per_domain(net, EXAMPLE, folder)


@pytest.mark.parametrize("name", ["../notes.onnx", "/notes.onnx", "notes.txt", "mine.safetensors"])
def test_an_index_that_names_other_files_is_refused(tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "notes.onnx").write_text("mine")
    row = {"graph": "a.onnx", "weights": name} if name.endswith("safetensors") else None
    row = row or {"graph": name, "weights": "a-0123456789abcdef.safetensors"}
    index = {"shared": "shared-0123456789abcdef.safetensors", "domains": {"a": row}}
    (folder / "domains.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"domains\.json is damaged"):
        to_onnx_per_domain(shared_net(), EXAMPLE, folder)
    assert (tmp_path / "notes.onnx").read_text() == "mine"
