"""Noise that shifts and scales activations, differently in every step."""

import torch
from torch import Tensor, nn

MEANS, SPREADS = (-0.5, 0.5), (1.0, 1.25)
SHIFT, SCALE = 0.1, 0.1


class CovariateNoise(nn.Module):
    """In train mode: y = s x + m, of a distribution that changes with each call and activation.

    For each activation (all dimensions but the batch) a call draws mu from U(-0.5, 0.5) and sigma
    from U(1, 1.25); for each sample of it m from U(mu - 0.1, mu + 0.1) and s from N(sigma, 0.1). So
    the distribution of a layer's inputs has neither mean 0 nor variance 1, nor stays the same:
    internal covariate shift on purpose (Santurkar et al. 2018, section 2.1; the constants are as
    we remember their appendix). In eval mode nothing changes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any x (B, ...)."""
        if not self.training:
            return x
        one = x[:1]
        mean = torch.empty_like(one).uniform_(*MEANS)
        spread = torch.empty_like(one).uniform_(*SPREADS)
        m = mean + torch.empty_like(x).uniform_(-SHIFT, SHIFT)
        s = spread + SCALE * torch.randn_like(x)
        return s * x + m
