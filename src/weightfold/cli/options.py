"""Options that several commands have, each described once."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

Model = Annotated[
    str,
    tyro.conf.arg(
        help="Network: one of weightfold's (mlp, lenet, digitnet, smallnet_a, mobilenet_v1...), a "
        "model of torchvision (mobilenet_v2, resnet18,small_image=true), timm/NAME, or "
        "module:function of your own."
    ),
]
BundleModel = Annotated[
    str | None,
    tyro.conf.arg(
        help="Network, for a bundle that does not tell its own, or names code of yours "
        "(module:function), which no file may run by itself."
    ),
]
Data = Annotated[
    str,
    tyro.conf.arg(
        help="Data set: digits, cifar10, cifar100, mnist, ..., the path of an .npz file or of a "
        "folder of images; with options such as rgb=true, limit=5000, corrupt=0.8."
    ),
]
DataRoot = Annotated[
    Path | None, tyro.conf.arg(help="Data folder; none: the environment variable WEIGHTFOLD_DATA.")
]
Weights = Annotated[
    str,
    tyro.conf.arg(
        help="Weights to start from, instead of a seed's: last.safetensors of a run of 'weightfold "
        "train', or your own state_dict as safetensors."
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], tyro.conf.arg(help="Where to compute.")]
On = Annotated[
    str,
    tyro.conf.arg(
        help="Where runs are made: local; slurm,partition=gpu,gpus_per_node=1,time=120; or "
        "ray,address=auto. See docs/cluster.md."
    ),
]
Jobs = Annotated[
    int | None,
    tyro.conf.arg(
        help="Runs at once; none: one on this machine, elsewhere as many as there is room for. On "
        "this machine they share the cores and are dealt the GPUs in turn; 2 or more pay for small "
        "networks."
    ),
]
