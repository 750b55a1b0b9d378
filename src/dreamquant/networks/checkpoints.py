"""Finds the tensors of a network in a checkpoint, as different tools write it.

Names may begin with the prefix of a wrapper (``module.``, ``_orig_mod.``, ``model.``). The file may
also contain an average of the weights, and tensors that only training needs. Names and shapes are
compared with those of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamquant.errors import WeightsError
from dreamquant.networks.matching import Fit, fits_of
from dreamquant.networks.reparametrized import bake, bake_tensors
from dreamquant.networks.weights import is_counter, read_groups, some, tensors_of


class Loaded(NamedTuple):
    """The decisions made while a checkpoint was read.

    Attributes:
        notes: the decisions in words, for the record.
        absent: modules whose tensors are not in the file. They are set to zero and must not run.
    """

    notes: tuple[str, ...]
    absent: tuple[str, ...]


def load_weights(module: nn.Module, path: Path, *, drop_unexpected: bool = False) -> Loaded:
    """Load a weights file into ``module``: every tensor must be there, with the right shape.

    Two kinds of tensors may be missing: ``num_batches_tracked`` of batch norms, and auxiliary
    heads, which evaluation does not use. Tensors that only training uses may be left over. If
    only one of file and module has reparametrized weights, both get plain weights of the same
    values.

    Args:
        module: the network, changed in place; its types stay.
        path: the file; ``FILE#NAME`` selects one of several state dicts.
        drop_unexpected: ignore any other tensors in the file.

    Raises:
        WeightsError: the file is unreadable, contains several networks, or its names, shapes or
                types differ from the network's.
    """
    file, asked = _file_and_choice(path)
    groups = read_groups(file)
    fit, notes = _best(groups, module, asked, file, drop_unexpected)
    baked: tuple[str, ...] = ()
    if not fit.complete:
        plain = {place: bake_tensors(tensors) for place, tensors in groups.items()}
        in_module = bake(module)
        again = {place: tensors for place, (tensors, _) in plain.items()}
        fit, notes = _best(again, module, asked, file, drop_unexpected)
        baked = (*in_module, *(f"checkpoint: {note}" for note in plain[fit.place][1]))
    if not fit.complete:
        raise _mismatch(fit, file)
    # Not strict, because missing and unexpected tensors have been checked above.
    module.load_state_dict(fit.tensors(), strict=False)
    return Loaded((*notes, *baked, *fit.notes()), fit.absent)


def _file_and_choice(path: Path) -> tuple[Path, str | None]:
    if path.exists() or "#" not in path.name:
        return path, None
    name, _, choice = path.name.rpartition("#")
    return path.with_name(name), choice


def _best(
    groups: Mapping[str, Mapping[str, Tensor]],
    module: nn.Module,
    asked: str | None,
    file: Path,
    lenient: bool,
) -> tuple[Fit, tuple[str, ...]]:
    """The state dict that fits the network, or else the most similar one."""
    wanted = tensors_of(module)
    fits = [fit for place in groups for fit in fits_of(place, groups[place], wanted, lenient)]
    if asked is not None:
        fits = _chosen(fits, asked, file)
    complete = [fit for fit in fits if fit.complete]
    if not complete:
        return max(fits, key=lambda fit: len(fit.fitting)), ()
    different = _different(complete)
    plain = [fit for fit in different if not fit.averaged] or different
    if len(plain) > 1:
        raise WeightsError(
            f"the file contains several networks: {', '.join(fit.label for fit in plain)}",
            where=str(file),
            remedy=f"choose one: --weights {file}#{plain[0].label}",
        )
    return plain[0], _choice(plain[0], different, file)


def _choice(taken: Fit, others: Sequence[Fit], file: Path) -> tuple[str, ...]:
    beside = [fit.label for fit in others if fit is not taken]
    if not beside:
        return (f"checkpoint: weights of {taken.label!r}",) if taken.averaged else ()
    return (
        f"checkpoint: weights of {taken.label!r}; {', '.join(map(repr, beside))} would fit too: "
        f"--weights {file.name}#{beside[0]}",
    )


def _chosen(fits: Sequence[Fit], asked: str, file: Path) -> list[Fit]:
    chosen = [
        fit for fit in fits if asked in (fit.place, fit.prefix.rstrip("."), fit.place.split(".")[0])
    ]
    if not chosen:
        known = dict.fromkeys(fit.label for fit in fits if fit.label)
        raise WeightsError(
            f"the file contains no {asked!r}",
            where=str(file),
            remedy=f"choose one of {some(known)}"
            if known
            else f"give {file} without a name: it contains one state dict",
        )
    return chosen


def _different(fits: Sequence[Fit]) -> list[Fit]:
    """The fits without those that repeat the tensors of an earlier one."""
    different: list[Fit] = []
    for fit in fits:
        tensors = fit.tensors()
        if not any(_same(tensors, other.tensors()) for other in different):
            different.append(fit)
    return different


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    shared = [n for n in a if not is_counter(n)]
    return all(n in b and torch.equal(a[n], b[n]) for n in shared)


def _mismatch(fit: Fit, file: Path) -> WeightsError:
    kinds = {
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "of another shape or type": fit.misshaped,
    }
    lines = [f"\n  {len(v)} {kind}: {some(v)}" for kind, v in kinds.items() if v]
    return WeightsError(
        "the weights do not fit the network" + "".join(lines) + f"\n  {_common(fit)}",
        where=f"{file}#{fit.place}" if fit.place else str(file),
        remedy="give the architecture that the weights were trained in; give --classes if only "
        "the last layer differs",
    )


def _common(fit: Fit) -> str:
    """Describes the longest sequence of the network's tensors that fit."""
    fitting = set(fit.fitting)
    runs = [list(run) for fits, run in groupby(fit.wanted, fitting.__contains__) if fits]
    if not runs:
        return f"no tensor of the network's {len(fit.wanted)} is in the file"
    run = max(runs, key=len)
    ends = run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}"
    prefix = f" under the prefix {fit.prefix!r}" if fit.prefix else ""
    return f"{len(fitting)} of {len(fit.wanted)} fit{prefix}; the longest common part is {ends}"
