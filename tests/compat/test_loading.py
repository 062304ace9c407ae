"""Nets that earlier versions saved load and give what they gave."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import weightfold as wf
from weightfold.methods.share.bundle import Bundle

HERE = Path(__file__).parent
SAVED = [folder for folder in sorted(HERE.glob("[0-9]*/*")) if folder.is_dir()]


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("compat_writer", HERE / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_it_gives_what_it_gave(writer, folder):
    expected = load_file(folder.parent / "outputs.safetensors")
    found = writer.run(wf.load(folder, writer.model()))
    assert found.keys() == {n.split("/")[1] for n in expected if n.startswith(f"{folder.name}/")}
    for part, value in found.items():
        wanted = expected[f"{folder.name}/{part}"]
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_saved_again_it_loads(writer, folder, tmp_path):
    net = wf.load(folder, writer.model())
    wf.save(net, tmp_path / "again")
    again = wf.load(tmp_path / "again", writer.model())
    assert list(again.state_dict()) == list(net.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), net.state_dict().values(), strict=True)
    )


def test_a_fresh_process_knows_the_charts(tmp_path):
    """Nothing but the class that reads it has been imported."""
    code = (
        "import importlib.util, sys; from weightfold.methods.share.bundle import Bundle;"
        f"spec = importlib.util.spec_from_file_location('w', {str(HERE / 'write.py')!r});"
        "w = importlib.util.module_from_spec(spec); spec.loader.exec_module(w);"
        f"net = Bundle({str(HERE / '0.1.0' / 'shared')!r}).load(w.model(), ['cars']);"
        "assert type(net).__name__ == 'SharedNet', type(net)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bundle_is_read_domain_by_domain(writer):
    bundle = Bundle(HERE / "0.1.0" / "shared")
    assert bundle.classes == {"birds": 2, "cars": 3}
    net = bundle.load(writer.model(), ["cars"])
    expected = load_file(HERE / "0.1.0" / "outputs.safetensors")["shared/cars"]
    torch.testing.assert_close(writer.run(net)["cars"], expected, rtol=1e-5, atol=1e-6)
