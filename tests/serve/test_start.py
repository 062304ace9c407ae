"""What would fail on every request is refused when a server starts."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import weightfold as wf
from weightfold.records import sealed
from weightfold.serve.engine import Engine
from weightfold.serve.snapshot import DomainUnavailable


def plain(dtype=torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).to(dtype)


def write(folder, dtype=torch.float32, shape=(3, 8, 8)):
    net = plain(dtype)
    plan = wf.plan_sharing(net.float(), "bottom", 0.2, example_input=torch.zeros(1, 3, 8, 8))
    shared = wf.share(net.to(dtype), {"a": 4, "b": 3}, plan)
    shared.about["a"] = wf.Preprocessing((3, 8, 8)).record()
    shared.about["b"] = wf.Preprocessing(shape).record()
    wf.save(shared, folder)
    return next(folder.glob("domain-b*"))


def rewrite(path, change):
    """Change a domain's tensors, and the hash that the manifest has of them."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    save_file({name: change(tensor) for name, tensor in tensors.items()}, path, metadata)
    manifest = path.with_name("manifest.json")
    record = json.loads(manifest.read_text())
    record["parts"]["b"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    del record["sha256"]
    manifest.write_text(json.dumps(sealed(record)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4] + b"abcd"), "changed"),
        (lambda path: rewrite(path, lambda t: t.half()), "float16"),
        (lambda path: rewrite(path, lambda t: t.flatten()), "needs torch.float32"),
        (
            lambda path: rewrite(path, lambda t: t / 0 if t.is_floating_point() else t),
            "NaN or infinite",
        ),
    ],
)
def test_half_bundles(damage, message, tmp_path):
    damage(write(tmp_path))
    with pytest.raises(ValueError, match=f"'b'.*{message}"):
        Engine(tmp_path, plain())


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 8, 8)])
def test_images_that_the_network_does_not_take(shape, tmp_path):
    write(tmp_path, shape=shape)
    with pytest.raises(ValueError, match="'b': the network does not take its images of"):
        Engine(tmp_path, plain())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_served(dtype, tmp_path):
    write(tmp_path, dtype)
    (answer,) = Engine(tmp_path, plain()).predict([torch.zeros(3, 8, 8)], ["b"])
    assert answer.dtype == torch.float32 and answer.sum().item() == pytest.approx(1, abs=1e-3)


def test_answers_that_are_no_numbers_are_not_given(tmp_path):
    write(tmp_path)
    with pytest.raises(DomainUnavailable, match="'a' gives NaN"):
        Engine(tmp_path, plain()).predict([torch.full((3, 8, 8), torch.nan)], ["a"])
