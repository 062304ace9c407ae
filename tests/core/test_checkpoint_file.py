"""Weights as the scripts of others save them."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from weightfold.core.checkpoint_file import named_as, read_checkpoint
from weightfold.train import Start
from weightfold.train.starts import begin


class Wrapping(nn.Module):
    """A network with a submodule that is called as the wrappers' is."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.head = nn.Linear(3, 2), nn.Linear(2, 2)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


RENAMED = {
    "plain": lambda name: name,
    "parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "inside": lambda name: name.replace("0.", "0._orig_mod."),
    "mixed": lambda name: f"module.{name}" if name.startswith("0") else name,
    "lightning": lambda name: f"model.{name}",
    "lightning, compiled": lambda name: f"model._orig_mod.{name}",
}


@pytest.mark.parametrize("how", RENAMED)
@pytest.mark.parametrize("nested", [None, "state_dict", "model", "model_state", "safetensors"])
def test_checkpoints_load_whatever_wrapped_the_network(how, nested, tmp_path):
    right, path = net(1), tmp_path / "weights"
    state = {RENAMED[how](name): tensor for name, tensor in right.state_dict().items()}
    if nested == "safetensors":
        save_file(state, path)
    else:
        held = {nested: state, "epoch": 3, "optimizer": {"state": {}}} if nested else state
        torch.save(held, path)
    found = begin(net(0), Start(path)).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in right.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_submodule_that_is_called_module_stays(prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in Wrapping().state_dict().items()}
    assert list(named_as(state, Wrapping().state_dict())) == list(Wrapping().state_dict())


def test_one_name_for_two_tensors_is_refused():
    state = net(0).state_dict()
    with pytest.raises(ValueError, match=r"'0.weight' is in the weights more than once.*module.0"):
        named_as(state | {"module.0.weight": state["0.weight"]}, state)


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.pt"
    for held, message in (
        (net(0), "save the network's state_dict"),
        ({"epoch": 3}, "holds no state_dict but 'epoch'"),
        ([1], "holds no state_dict but list"),
        ({"model": net(0).state_dict(), "net": net(1).state_dict()}, "'model' and 'net'"),
    ):
        torch.save(held, path)
        with pytest.raises(ValueError, match=message) as found:
            read_checkpoint(path)
        assert str(path) in str(found.value)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=str(path)):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="weights"):
        read_checkpoint(tmp_path / "weights")
    with pytest.raises(KeyError, match="another architecture"):
        torch.save({"a": torch.zeros(2)}, path)
        begin(net(0), Start(path))
