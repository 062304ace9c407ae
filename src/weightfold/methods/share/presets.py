"""Sizes of the paper's Table 1: numbers of own filters, and the parameter column they give.

Zhang, Yang, Liu, Guan: Rethinking hard-parameter sharing in multi-domain learning. The paper states
a share of 20% of the convolution weights, but its parameter column is that of round numbers of
filters, which own 20.0 to 22.0%; its parameters are those of torchvision's networks with their
1000-class classifiers. Loads no torch.
"""

PAPER_FILTERS: dict[str, dict[str, int]] = {
    "mobilenet_v2": {"bottom": 7500, "top": 1350, "random": 3600},
    "resnet50": {"bottom": 9600, "top": 3600, "random": 5320},
    "mnasnet1_0": {"bottom": 7600, "top": 1500, "random": 4150},
    "squeezenet1_0": {"bottom": 1100, "top": 350, "random": 610},
}
"""`num_filters` by torchvision network and strategy; those of "random" are fitted to the mean of
two networks and uncertain."""

PAPER_SHARED_NORMS: dict[str, str] = {"resnet50": "*.downsample.1"}
"""Batch norms that Table 1's parameter column counts once: `shared_norms`."""

PAPER_PARAMETERS: dict[str, dict[str, str]] = {
    "mobilenet_v2": {"bottom": "10.63", "top": "10.67", "random": "10.61", "independent": "17.52"},
    "resnet50": {"bottom": "52.97", "top": "52.84", "random": "52.74", "independent": "127.78"},
    "mnasnet1_0": {"bottom": "12.24", "top": "12.31", "random": "12.34", "independent": "21.91"},
    "squeezenet1_0": {"bottom": "3.90", "top": "3.91", "random": "3.90", "independent": "6.24"},
}
"""Millions of parameters of five domains as printed in Table 1: truncated, not rounded."""
