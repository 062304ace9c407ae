"""Filter sharing of a network whose outputs are maps: a segmenter for two cities."""

import torch

import weightfold as wf


def test_a_segmenter_of_two_cities_takes_mixed_batches():
    torch.manual_seed(0)
    model = wf.nets.build("unet,width=4,depth=2,batch_norm=true", num_classes=3)
    images = torch.randn(4, 3, 16, 16)
    plan = wf.plan_sharing(model, "bottom", 0.5, example_input=images)
    net = wf.share(model, {"bonn": 3, "ulm": 3}, plan).eval()
    alone = {name: net(images, domain=name) for name in ("bonn", "ulm")}
    for name, outputs in alone.items():
        torch.testing.assert_close(net.deploy(domain=name)(images), outputs)
    mixed = net(images, domain=["bonn", "ulm", "ulm", "bonn"])
    assert mixed.shape == (4, 3, 16, 16)
    for i, name in enumerate(("bonn", "ulm", "ulm", "bonn")):
        torch.testing.assert_close(mixed[i], alone[name][i], rtol=1e-4, atol=1e-5)
    # Transposed convolutions are shared whole: no domain has filters of its own there.
    assert not any("grow" in name for name, _ in net.named_parameters() if "bonn" in name)
    assert any("grow" in name for name, _ in net.named_parameters())
