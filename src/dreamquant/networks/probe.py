"""What a network is made of, and what a method needs that it lacks."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.errors import NetworkError
from dreamquant.networks.load import Network


def batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """Batch norms with running statistics and their names, in the order of registration.

    One that occurs several times is listed once, under its first name.
    """
    return [(n, m) for n, m in _all_batch_norms(module) if m.running_mean is not None]


def require_batch_norm(network: Network, method: str) -> None:
    """Refuse a network without the statistics that ``method`` draws its images from.

    Raises:
        NetworkError: no batch norm of the network has running statistics.
    """
    if batch_norms(network.module):
        return
    idle = len(_all_batch_norms(network.module))
    lack = f"only {idle} batch norms that keep none" if idle else "none"
    raise NetworkError(
        f"method {method!r} needs batch-norm statistics and {network.name} has {lack}",
        where="--method",
        remedy="choose a method that needs none, or a network trained with batch norm",
    )


def _all_batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(n, m) for n, m in module.named_modules() if isinstance(m, _BatchNorm)]
