"""Networks of several outputs are exported by the one that is meant."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from weightfold.export import onnx_runner, to_exported_program, to_onnx, to_safetensors
from weightfold.export.runners import program_runner
from weightfold.export.subject import OneOutput, one_output

EXAMPLE = torch.zeros(1, 6)


class Several(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body, self.head, self.kind = nn.Linear(6, 4), nn.Linear(4, 3), kind

    def forward(self, x):
        features = self.body(x)
        logits = self.head(features)
        return {
            "logits": {"features": features, "logits": logits},
            "out": {"out": logits, "aux": features},
            "tuple": (features, logits),
            "other": {"a": features, "b": logits},
        }[self.kind]


@pytest.mark.parametrize("kind", ["logits", "out"])
def test_the_main_output_is_exported(kind, tmp_path):
    net, x = Several(kind), torch.randn(4, 6)
    right = net(x)[kind]
    to_onnx(net, EXAMPLE, tmp_path / "net.onnx")
    to_exported_program(net, EXAMPLE, tmp_path / "net.pt2")
    torch.testing.assert_close(onnx_runner(tmp_path / "net.onnx")(x), right)
    torch.testing.assert_close(program_runner(tmp_path / "net.pt2")(x), right)
    to_safetensors(net, EXAMPLE, tmp_path / "net.safetensors")
    net.load_state_dict(load_file(tmp_path / "net.safetensors"))


@pytest.mark.parametrize(("kind", "output"), [("tuple", 1), ("tuple", "1"), ("other", "b")])
def test_another_one_is_said(kind, output, tmp_path):
    net, x = Several(kind), torch.randn(4, 6)
    with pytest.raises(TypeError, match="Several: output=None is no tensor among"):
        to_onnx(net, EXAMPLE, tmp_path / "net.onnx")
    one = one_output(net, EXAMPLE, output)
    to_onnx(one, EXAMPLE, tmp_path / "net.onnx")
    torch.testing.assert_close(onnx_runner(tmp_path / "net.onnx")(x), OneOutput(net, output)(x))
    to_safetensors(one, EXAMPLE, tmp_path / "net.safetensors")
    assert load_file(tmp_path / "net.safetensors").keys() == net.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_that_onnx_runtime_lacks_are_named(dtype, tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()).to(dtype)
    with pytest.raises(RuntimeError, match=rf"dtype {dtype}; try net\.float\(\)"):
        to_onnx(net, torch.zeros(1, 1, 5, 5, dtype=dtype), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
