"""The training script plain.py with three more lines: import, expand, deploy.

    python examples/expanded.py [epochs]

What it saves is the network that plain.py saves: the same keys, the same shapes.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import weightfold as wf

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
torch.manual_seed(0)

values, labels = load_digits(return_X_y=True)
x = torch.tensor(values / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
y = torch.tensor(labels)
order = torch.randperm(len(x))
train, test = order[:1200], order[1200:]

net = nn.Sequential(
    nn.Conv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(4, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(32, 10),
)  # fmt: skip
net = wf.expand(net, rate=4)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

for _ in range(epochs):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()

net = net.deploy()
net.eval()
with torch.no_grad():
    accuracy = (net(x[test]).argmax(dim=1) == y[test]).float().mean().item()
print(f"test accuracy {accuracy:.2%}")
torch.save(net.state_dict(), "digits.pt")
