"""Do many domains in one network equal as many plain networks, in every family of networks?

`python benchmarks/share_families.py results/share-families 15` takes the smallest network of every torchvision
family, and of more than thirty of timm's, through `wf.share`, on noise, for 15 minutes: in float32, and in float64
where that leaves a doubt, as it does with batch norm. Networks that its file has as right or refused are not run again. Not part of
`make test`.
"""

import copy
import csv
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import weightfold as wf
from weightfold.files import replacing
from weightfold.methods.share.outputs import tensors_of

CLASSES = {"a": 3, "b": 5}
IMAGES = 3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}

TORCHVISION = {
    "squeezenet1_1": 32, "mnasnet0_5": 32, "shufflenet_v2_x0_5": 32, "mobilenet_v3_small": 32,
    "mobilenet_v2": 32, "regnet_x_400mf": 64, "googlenet": 64, "resnet18": 32, "alexnet": 64,
    "densenet121": 32, "inception_v3": 75, "efficientnet_b0": 32, "convnext_tiny": 32,
    "swin_t": 32, "vit_b_32": 32, "vgg11": 32, "maxvit_t": 224, "efficientnet_v2_s": 32,
    "vgg11_bn": 32, "regnet_y_400mf": 64, "resnext50_32x4d": 32, "swin_v2_t": 32,
    "wide_resnet50_2": 32,
}  # fmt: skip
"""Name -> size of the images; one of every family first."""

TIMM = {
    "mobilenetv3_small_050": 32, "efficientnet_lite0": 32, "nf_regnet_b0": 32, "lcnet_050": 32,
    "tinynet_e": 32, "ghostnet_050": 32, "repghostnet_050": 32, "regnety_002": 32, "mixnet_s": 32,
    "resnet10t": 32, "mobilenetv4_conv_small": 32, "starnet_s1": 32, "mobilevit_xxs": 64,
    "edgenext_xx_small": 64, "spnasnet_100": 32, "fbnetc_100": 32, "hardcorenas_a": 32,
    "rexnet_100": 32, "dla46_c": 32, "fasternet_t0": 64, "convnext_atto": 64,
    "convnextv2_atto": 64, "pvt_v2_b0": 64, "efficientvit_b0": 64, "swiftformer_xs": 64,
    "inception_next_atto": 64, "efficientnet_b0": 32, "repvgg_a0": 32, "mobileone_s0": 32,
    "ese_vovnet19b_slim_dw": 32, "repvit_m0_9": 32, "fastvit_t8": 64, "mambaout_femto": 64,
    "hgnetv2_b0": 32, "eca_nfnet_l0": 32, "seresnet18": 32, "skresnet18": 32,
    "legacy_seresnet18": 64, "resnest14d": 32, "nf_resnet26": 32, "densenet121": 32,
    "hrnet_w18_small": 32, "poolformer_s12": 64, "cspresnet50": 32, "darknet17": 32,
    "convmixer_768_32": 32, "res2net50_14w_8s": 32, "selecsls42": 32, "resnetv2_50x1_bit": 32,
    "dpn48b": 32, "inception_v3": 75, "xception41": 64, "tresnet_m": 32, "dm_nfnet_f0": 32,
    "vgg11_bn": 32, "efficientformer_l1": 224, "levit_128s": 224, "visformer_tiny": 224,
    "tiny_vit_5m_224": 224, "vit_tiny_patch16_224": 224, "botnet26t_256": 256,
    "coat_lite_tiny": 224, "mixer_s32_224": 224,
}  # fmt: skip


def build(source: str, name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    if source == "timm":
        net = timm.create_model(name, num_classes=4)
    else:
        options = {"image_size": size} if name.startswith("vit") else {}
        if name in ("googlenet", "inception_v3"):
            options = {"init_weights": True}
        net = getattr(torchvision.models, name)(num_classes=4, **options)
    for module in net.modules():  # the same random numbers are not drawn for a mixture
        for attribute in ("p", "drop_prob", "drop_rate", "dropout"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
        if isinstance(module, _BatchNorm):  # over few values it amplifies what rounding leaves
            module.eps = 0.1
    return net


@torch.no_grad()
def literal(model: nn.Module, net: nn.Module, domain: str) -> nn.Module:
    """The plain network of a domain, put together by hand from the net's tensors and the plan's masks."""
    plain = copy.deepcopy(model)
    kept = net.model.state_dict()
    for name, tensor in plain.state_dict().items():
        tensor.copy_(kept.get(name, tensor))
    own, shared, plan = net.sharing.domains[domain], net.sharing.shared, net.plan
    for path in plan.norms:
        plain.get_submodule(path).load_state_dict(own.get_submodule(path).state_dict())
    for path, mask in plan.own.items():
        rows = torch.tensor(mask)
        theirs = {} if rows.all() else dict(shared.get_submodule(path).named_parameters())
        for name, tensor in plain.get_submodule(path).named_parameters():
            tensor[rows] = own.get_submodule(path).get_parameter(name)
            if theirs:
                tensor[~rows] = theirs[name]
    head, mine = plain.get_submodule(plan.head), own.get_submodule(plan.head)
    for name, _ in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(mine.get_parameter(name).clone()))
    if hasattr(head, "out_channels"):
        head.out_channels = len(mine.weight)
    return plain


def difference(found: object, right: object) -> float:
    pairs = zip(tensors_of(found), tensors_of(right), strict=True)
    return max((distance(a, b) for a, b in pairs), default=0.0)


def distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    a, b = (torch.where(t.isfinite(), t, 0).double() for t in (a, b))
    return ((a - b).norm() / b.norm().clamp_min(1e-6)).item()


def gradients(net: nn.Module, plain: nn.Module, plan: wf.Plan, domain: str) -> float:
    """Of all tensors, the domain's rows and the shared ones."""
    worst = 0.0
    for name, tensor in plain.named_parameters():
        path, attribute = name.rpartition(".")[0], name.rpartition(".")[2]
        wanted = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        owner = next(
            (p for p in (*plan.own, *plan.norms, plan.head) if f"{name}.".startswith(f"{p}.")), None
        )
        if owner is None:
            pairs = [(net.model.get_parameter(name), wanted)]
        elif path in plan.own:
            rows = torch.tensor(plan.own[path])
            pairs = [
                (
                    net.sharing.domains[domain].get_submodule(path).get_parameter(attribute),
                    wanted[rows],
                )
            ]
            if not rows.all():
                pairs.append(
                    (net.sharing.shared.get_submodule(path).get_parameter(attribute), wanted[~rows])
                )
        else:
            pairs = [(net.sharing.domains[domain].get_parameter(name), wanted)]
        for ours, theirs in pairs:
            given = torch.zeros_like(ours) if ours.grad is None else ours.grad
            worst = max(worst, ((given - theirs).norm() / theirs.norm().clamp_min(1e-3)).item())
    return worst


def squares(outputs: object) -> Tensor:
    return sum(t.square().sum() for t in tensors_of(outputs) if t.is_floating_point())


def check(model: nn.Module, size: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(1)
    images = {d: torch.randn(IMAGES, 3, size, size, generator=generator) for d in CLASSES}
    dtype = next(model.parameters()).dtype
    images = {d: x.to(dtype) for d, x in images.items()}
    plan = wf.plan_sharing(model, "random", 0.5, example_input=images["a"])
    net = wf.share(model, CLASSES, plan)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.add_(0.1 * p.std(correction=0).clamp_min(0.02) * noise)
    found: dict[str, float] = {}
    plains = {d: literal(model, net, d) for d in CLASSES}
    net.eval()
    alone = {}
    for domain, plain in plains.items():
        right, alone[domain] = plain.eval()(images[domain]), net(images[domain], domain=domain)
        note(found, "eval", difference(alone[domain], right))
        note(found, "deploy", difference(net.deploy(domain=domain).eval()(images[domain]), right))
    x, ids = torch.cat([*images.values()]), torch.arange(2).repeat_interleave(IMAGES)
    order = torch.tensor([0, 3, 1, 4, 5, 2])
    mixed = net(x[order], domain=ids[order])
    for d, index in (("a", ids[order] == 0), ("b", ids[order] == 1)):
        rows = order[index] % IMAGES
        pairs = zip(tensors_of(mixed), tensors_of(alone[d]), strict=True)
        note(found, "mixed", max(distance(m[index][:, : a.shape[1]], a[rows]) for m, a in pairs))
    together = any(s.together for s in net._separations.values())
    with tempfile.TemporaryDirectory() as folder:
        wf.save(net, f"{folder}/net")
        loaded = wf.load(f"{folder}/net", model).eval()
        note(found, "loaded", difference(loaded(x[order], domain=ids[order]), mixed))
    net.train()
    for module in net.model.modules():  # modes as the plain networks' are
        module.training = True
    joint = copy.deepcopy(net)
    outputs = joint(images)
    sum(squares(o) for o in outputs.values()).backward()
    apart: dict[str, Tensor] = {}
    for domain, plain in plains.items():
        plain.train().zero_grad()
        right = plain(images[domain])
        net.zero_grad()
        ours = net(images[domain], domain=domain)
        note(found, "train", difference(ours, right))
        note(found, "train, mixed", difference(outputs[domain], right))
        squares(right).backward()
        squares(ours).backward()
        note(found, "gradients", gradients(net, plain, plan, domain))
        buffers = dict(plain.named_buffers())
        after = dict(net.deploy(domain=domain).named_buffers())
        own = [n for n in buffers if n.rpartition(".")[0] in plan.norms]
        note(
            found,
            "statistics",
            max((distance(after[n].double(), buffers[n].double()) for n in own), default=0.0),
        )
        for n, p in net.named_parameters():
            if p.grad is not None:
                apart[n] = apart.get(n, 0) + p.grad
    summed = {n: p.grad for n, p in joint.named_parameters() if p.grad is not None}
    total = torch.stack([g.norm() for g in apart.values()]).norm()
    gap = max(((summed[n] - g).norm() / (g.norm() + 1e-3 * total)).item() for n, g in apart.items())
    note(found, "gradients, mixed", gap)
    return {"together": together, "own": f"{plan.weights_share:.0%}", "found": found}


def note(found: dict[str, float], what: str, value: float) -> None:
    found[what] = max(found.get(what, 0.0), value if value == value else float("inf"))


def examine(source: str, name: str, size: int) -> dict[str, object]:
    begin = time.perf_counter()
    row: dict[str, object] = {"source": source, "network": name, "pixels": size}
    try:
        model = build(source, name, size)
        normed = any(isinstance(module, _BatchNorm) for module in model.modules())
        dtype = torch.float64 if normed else torch.float32
        seen = check(model.to(dtype), size)
        if not normed and max(seen["found"].values()) > TOLERANCE[dtype]:
            dtype, seen = torch.float64, check(build(source, name, size).double(), size)
    except (TypeError, ValueError) as error:
        row |= {"verdict": f"refused: {str(error)[:300]}", "mixture": "", "own": "", "worst": ""}
    except Exception as error:
        row |= {
            "verdict": f"ERROR {type(error).__name__}: {str(error)[:200]}",
            "mixture": "",
            "own": "",
            "worst": "",
        }
    else:
        what, worst = max(seen["found"].items(), key=lambda item: item[1])
        wrong = [f"{k} {v:.1e}" for k, v in seen["found"].items() if v > TOLERANCE[dtype]]
        row |= {
            "verdict": f"WRONG: {', '.join(wrong)}" if wrong else "right",
            "mixture": "one forward" if seen["together"] else "a forward a domain",
            "own": seen["own"],
            "worst": f"{worst:.0e} ({what}, {str(dtype)[6:]})",
        }
    seconds = time.perf_counter() - begin
    print(
        f"{seconds:6.1f} s  {source}/{name}: {row['verdict']} {row['mixture']} {row['worst']}",
        flush=True,
    )
    return row


def report(rows: list[dict[str, object]], minutes: float) -> str:
    right = sum(row["verdict"] == "right" for row in rows)
    refused = sum(str(row["verdict"]).startswith("refused") for row in rows)
    lines = [
        "# Families of networks under `wf.share`",
        "",
        f"Made by `python benchmarks/share_families.py results/share-families 15` (the last time {minutes:.0f} minutes, torch "
        f"{torch.__version__.partition('+')[0]}, torchvision {torchvision.__version__.partition('+')[0]}, timm "
        f"{timm.__version__}). {len(rows)} networks: {right} right, {refused} refused, "
        f"{len(rows) - right - refused} wrong.",
        "",
        "Two domains of 3 and 5 classes, a random half of the filters own, noise, dropout off, batch norms with eps 0.1 (1e-5 in rows of an earlier run that say float64), float32 and, with batch norm or where that leaves a doubt, float64. Right: outputs of each "
        "domain in eval and train mode, of mixtures, of `deploy()` and of the loaded save, gradients and statistics "
        "equal those of a plain network put together by hand, to 1e-7 of their norm in float64 and 1e-4 in float32; the worst is given.",
        "",
        "| network | verdict | a mixture runs in | own | worst |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['source']} {r['network']}, {r['pixels']} px | {r['verdict']} | {r['mixture']} | {r['own']} | {r['worst']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder, minutes, chosen = Path(sys.argv[1]), float(sys.argv[2]), set(sys.argv[3:])
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    todo = [("timm", *item) for item in TIMM.items()] + [
        ("torchvision", *item) for item in TORCHVISION.items()
    ]
    # Alternately, so that what the time does not reach is of both.
    todo.sort(
        key=lambda each: (list(TIMM) if each[0] == "timm" else list(TORCHVISION)).index(each[1])
    )
    todo = [each for each in todo if not chosen or each[1] in chosen]
    rows = earlier(folder / "families.csv")
    done = {(row["source"], row["network"]) for row in rows}
    todo = [each for each in todo if each[:2] not in done]
    for place, each in enumerate(todo):
        spent = (time.perf_counter() - begin) / 60
        if spent > minutes:
            break
        rows.append(examine(*each))
        write(folder, rows, (time.perf_counter() - begin) / 60, todo[place + 1 :])


def earlier(path: Path) -> list[dict[str, object]]:
    """Rows of runs before this one that need no other look."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return [row for row in rows if str(row["verdict"]).startswith(("right", "refused"))]


def write(folder: Path, rows: list[dict[str, object]], minutes: float, left: list[tuple]) -> None:
    with replacing(folder / "families.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with replacing(folder / "README.md") as path:
        text = report(rows, minutes)
        if left:
            text += f"\nNot run in the time given: {', '.join(f'{s} {n}' for s, n, _ in left)}.\n"
        path.write_text(text)


if __name__ == "__main__":
    main()
