"""The smallest system that uses everything of the loop: dropout, batch statistics, random augmentation, pictures."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from immersivedepth.checks import InputError
from immersivedepth.training import System


@dataclass
class Numbers:
    """Eight numbers and a linear function of them; noise is the augmentation."""

    count: int = 24
    noise: float = 0.1
    broken: int = -1
    delay: float = 0.0

    def __len__(self):
        return self.count

    def sample(self, index, random):
        if index == self.broken:
            raise InputError(f"sample {index} is damaged")
        time.sleep(self.delay)
        x = torch.linspace(-1, 1, 8).roll(index) * (1 + index / self.count)
        y = x.sum() + x[0] * 2
        return {
            "x": x + self.noise * torch.from_numpy(random.standard_normal(8)).float(),
            "y": y[None],
            "name": str(index),
        }


@dataclass
class Endless:
    """The same as a stream."""

    def batch(self, number, size, device):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(size, 8, generator=generator)
        return {"x": x.to(device), "y": (x.sum(1, keepdim=True) + 2 * x[:, :1]).to(device)}


class Net(nn.Module):
    def __init__(self, norm, dropout):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(16, 1)

    def forward(self, x):
        return self.last(self.dropout(torch.relu(self.norm(self.first(x)))))


@dataclass(kw_only=True)
class Toy(System):
    norm: bool = True
    dropout: float = 0.1
    stream: bool = False
    validated: bool = True

    def net(self):
        return Net(self.norm, self.dropout)

    def data(self, dataset, split):
        if split == "train":
            return Endless() if self.stream else dataset
        return Numbers(10, 0.0) if self.validated else None

    def forward(self, net, batch):
        return net(batch["x"])

    def losses(self, outputs, batch):
        difference = outputs - batch["y"]
        return {"square": (difference**2).mean(), "absolute": 0.1 * difference.abs().mean()}

    def metrics(self, outputs, batch):
        square = ((outputs - batch["y"]) ** 2).sum()
        return {"rmse": (square, torch.tensor(float(len(outputs))))}

    def summary(self, means):
        return {**means, "rmse": means["rmse"] ** 0.5}

    def panels(self, outputs, batch):
        return {"numbers": batch["x"].sigmoid()[:, None, None].expand(-1, 3, 8, 8)}
