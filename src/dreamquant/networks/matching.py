"""Compares a state dict with a network; prefixes that wrappers add to names are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dreamquant.networks.weights import is_counter, some

# Parts that wrappers add to names, at any position.
_WRAPPING = frozenset({"_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
# Names of tensors that only training uses begin with these parts.
_TRAINING_ONLY = ("aux", "criterion", "loss", "metric", "n_averaged")
_PROFILED = frozenset({"total_ops", "total_params"})  # a profiler adds them to every module
_AVERAGES = ("ema", "swa", "averag", "teacher")
_ANCHORS = 3  # number of names that are used to find a prefix


@dataclass(frozen=True)
class Fit:
    """A state dict compared with a network.

    Attributes:
        place: position of the state dict in the file.
        prefix: prefix of the file's names that the network's names do not have.
        found: the state dict.
        wanted: the tensors of the network.
        names: for each tensor of the network that is in the file, its name there.
        lenient: whether any tensors of the file may be unused.
    """

    place: str
    prefix: str
    found: Mapping[str, Tensor]
    wanted: Mapping[str, Tensor]
    names: Mapping[str, str]
    lenient: bool

    @property
    def label(self) -> str:
        """The name by which a user can choose this state dict."""
        return self.place or self.prefix.rstrip(".")

    @property
    def averaged(self) -> bool:
        """Whether its names indicate averaged weights."""
        return any(word in f"{self.place}.{self.prefix}".lower() for word in _AVERAGES)

    @cached_property
    def fitting(self) -> list[str]:
        """Names of the network's tensors that are in the file with the right shape."""
        return [w for w, f in self.names.items() if _fits(self.found[f], self.wanted[w])]

    @cached_property
    def missing(self) -> list[str]:
        """Names of required tensors that are not in the file."""
        lacking = [w for w in self.wanted if w not in self.names and not is_counter(w)]
        return [name for name in lacking if not _first(name).startswith("aux")]

    @cached_property
    def surplus(self) -> list[str]:
        """Names in the file that the network does not have, without counters."""
        used = set(self.names.values())
        left = [name for name in self.found if name not in used]
        return [n for n in left if n.rpartition(".")[2] not in _PROFILED and not is_counter(n)]

    @cached_property
    def unexpected(self) -> list[str]:
        """Surplus names that may belong to another network."""
        if self.lenient:
            return []
        inside = [name for name in self.surplus if _plain(name).startswith(self.prefix)]
        return [
            name
            for name in inside
            if not _first(_plain(name).removeprefix(self.prefix)).startswith(_TRAINING_ONLY)
        ]

    @property
    def misshaped(self) -> list[str]:
        """Names of tensors whose shape or type in the file is wrong, with a description."""
        fitting = set(self.fitting)
        return [
            f"{w} {_describe(self.found[f])} instead of {_describe(self.wanted[w])}"
            for w, f in self.names.items()
            if w not in fitting
        ]

    @property
    def complete(self) -> bool:
        """Whether the state dict fits the network."""
        return not (self.missing or self.unexpected or self.misshaped)

    @property
    def absent(self) -> tuple[str, ...]:
        """Auxiliary heads that are not in the file."""
        lacking = [w for w in self.wanted if w not in self.names and not is_counter(w)]
        return tuple(dict.fromkeys(name.partition(".")[0] for name in lacking))

    def tensors(self) -> dict[str, Tensor]:
        """The network's tensors; zeros for auxiliary heads that are not in the file."""
        heads = {
            name: torch.zeros_like(tensor)
            for name, tensor in self.wanted.items()
            if name.partition(".")[0] in self.absent and name not in self.names
        }
        return heads | {name: self.found[own] for name, own in self.names.items()}

    def notes(self) -> tuple[str, ...]:
        """Descriptions of the decisions."""
        notes = []
        if self.prefix:
            notes.append(f"checkpoint: removed the prefix {self.prefix!r}")
        if any(_plain(name) != name for name in self.names.values() if name not in self.wanted):
            notes.append("checkpoint: removed wrappers' names")
        if self.surplus:
            notes.append(f"checkpoint: ignored {some(self.surplus)}")
        if self.absent:
            notes.append(
                f"checkpoint: has no {', '.join(self.absent)}, which evaluation does not use"
            )
        return tuple(notes)


def fits_of(
    place: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], lenient: bool
) -> Iterator[Fit]:
    """Possible ways to match the file's names with the network's: unchanged, then renamed."""
    as_they_are = {name: name for name in wanted if name in found}
    yield Fit(place, "", found, wanted, as_they_are, lenient)
    ours = {_plain(name): name for name in wanted}
    theirs = {_plain(name): name for name in found}
    for prefix in _prefixes(ours, theirs):
        names = {ours[n]: theirs[prefix + n] for n in ours if prefix + n in theirs}
        if names != as_they_are:
            yield Fit(place, prefix, found, wanted, names, lenient)
    for prefix in _prefixes(theirs, ours):
        names = {ours[prefix + n]: theirs[n] for n in theirs if prefix + n in ours}
        if prefix:
            yield Fit(place, "", found, wanted, names, lenient)


def _prefixes(short: Mapping[str, str], long: Mapping[str, str]) -> list[str]:
    """Prefixes that names of ``short`` have in ``long``, shortest first."""
    anchors = sorted(short, key=len)[-_ANCHORS:]
    found = {
        name.removesuffix(anchor)
        for anchor in anchors
        for name in long
        if name == anchor or name.endswith(f".{anchor}")
    }
    return sorted(found, key=len)


def _plain(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPING)


def _first(name: str) -> str:
    return name.partition(".")[0].lower()


def _fits(found: Tensor, wanted: Tensor) -> bool:
    # Half precision converts to float exactly; integer codes would become wrong numbers.
    same_kind = found.is_floating_point() == wanted.is_floating_point()
    return same_kind and found.layout == wanted.layout and found.shape == wanted.shape


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
