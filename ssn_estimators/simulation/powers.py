"""Powers of rectified potentials, in tensors; exponents are a number, or one for each cell."""

import torch

__all__ = ["power", "slope_of_power"]


def power(u, gamma):
    """[u]+^gamma."""
    return torch.relu(u).pow_(gamma)


def slope_of_power(u, gamma):
    """Its derivative over gamma, [u]+^(gamma - 1), which is 0 where u is not above 0."""
    if torch.is_tensor(gamma):
        return torch.relu(u).pow_(gamma - 1).mul_(u > 0)
    return (u > 0).to(u) if gamma == 1 else torch.relu(u).pow_(gamma - 1)
