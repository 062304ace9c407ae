"""One more domain for a saved bundle, its own filters in a random subspace of a few numbers.

python examples/domain_in_a_subspace.py BUNDLE MODEL NAME=DATASET [DIM ...]
"""

import sys
import tempfile

import weightfold as wf
from weightfold.methods.share.bundle import Bundle
from weightfold.nets import build
from weightfold.train import Recipe
from weightfold.train.domains import evaluate_domains, fit_domains, parse_domains


def main(folder: str, spec: str, domain: str, *dims: str) -> None:
    """Train the new domain whole, and in each dimension; the shared filters stay as they are."""
    ((name, dataset),) = parse_domains([domain], None).items()
    bundle, recipe = Bundle(folder), Recipe(epochs=4, batch_size=64, optimizer="adamw", lr=3e-3)
    model = build(spec, num_classes=dataset.num_classes)
    for dim in [0, *map(int, dims)]:
        net = bundle.load(model, domains=bundle.domains[:1])
        net.add_domain(name, dataset.num_classes, from_domain=bundle.domains[0])
        net.remove_domain(bundle.domains[0])
        where = f"domains.{name}.*"
        for tensor, parameter in net.named_parameters():
            parameter.requires_grad_(f".domains.{name}." in tensor)
        trained = wf.subspace(net, dim=dim, where=where, seed=0) if dim else net
        count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        with tempfile.TemporaryDirectory() as run:
            fit_domains(trained, {name: dataset}, recipe, folder=run, seed=0, progress=False)
        accuracy = evaluate_domains(trained, {name: dataset})[name]
        print(f"{name}: {count:,} trained numbers, test accuracy {accuracy:.2%}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
