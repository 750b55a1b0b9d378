"""A state dict held against a network: names compared through what wrappers put before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dreamquant.networks.weights import is_counter, some

# What wrappers put into names, wherever it stands.
_WRAPPING = frozenset({"_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
# First parts of names of what takes part in training alone.
_TRAINING_ONLY = ("aux", "criterion", "loss", "metric", "n_averaged")
_PROFILED = frozenset({"total_ops", "total_params"})  # counters of a profiler, in every module
_AVERAGES = ("ema", "swa", "averag", "teacher")
_ANCHORS = 3  # names that a prefix is looked for with


@dataclass(frozen=True)
class Fit:
    """A state dict, held against a network.

    Attributes:
        place: of the state dict in the file.
        prefix: of the file's names that the network lacks.
        found: the state dict.
        wanted: of the network.
        names: of the network's tensors in the file, as far as they are there.
        lenient: whether anything may be left over.
    """

    place: str
    prefix: str
    found: Mapping[str, Tensor]
    wanted: Mapping[str, Tensor]
    names: Mapping[str, str]
    lenient: bool

    @property
    def label(self) -> str:
        """What a user may choose it by."""
        return self.place or self.prefix.rstrip(".")

    @property
    def averaged(self) -> bool:
        """Whether its names tell of an average of weights."""
        return any(word in f"{self.place}.{self.prefix}".lower() for word in _AVERAGES)

    @cached_property
    def fitting(self) -> list[str]:
        """The network's names whose tensor is there in the right shape."""
        return [w for w, f in self.names.items() if _fits(self.found[f], self.wanted[w])]

    @cached_property
    def missing(self) -> list[str]:
        """The network's names that must be there and are not."""
        lacking = [w for w in self.wanted if w not in self.names and not is_counter(w)]
        return [name for name in lacking if not _first(name).startswith("aux")]

    @cached_property
    def surplus(self) -> list[str]:
        """The file's names that nothing of the network has, counters apart."""
        used = set(self.names.values())
        left = [name for name in self.found if name not in used]
        return [n for n in left if n.rpartition(".")[2] not in _PROFILED and not is_counter(n)]

    @cached_property
    def unexpected(self) -> list[str]:
        """Those of them that may be a part of another network."""
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
        """The network's names whose tensor is there in another shape or type, and which."""
        fitting = set(self.fitting)
        return [
            f"{w} {_describe(self.found[f])} instead of {_describe(self.wanted[w])}"
            for w, f in self.names.items()
            if w not in fitting
        ]

    @property
    def complete(self) -> bool:
        """Whether this is the network's."""
        return not (self.missing or self.unexpected or self.misshaped)

    @property
    def absent(self) -> tuple[str, ...]:
        """Auxiliary heads that the file lacks."""
        lacking = [w for w in self.wanted if w not in self.names and not is_counter(w)]
        return tuple(dict.fromkeys(name.partition(".")[0] for name in lacking))

    def tensors(self) -> dict[str, Tensor]:
        """The network's tensors; zero for heads that the file lacks."""
        heads = {
            name: torch.zeros_like(tensor)
            for name, tensor in self.wanted.items()
            if name.partition(".")[0] in self.absent and name not in self.names
        }
        return heads | {name: self.found[own] for name, own in self.names.items()}

    def notes(self) -> tuple[str, ...]:
        """What was decided, in words."""
        notes = []
        if self.prefix:
            notes.append(f"checkpoint: prefix {self.prefix!r} taken off")
        if any(_plain(name) != name for name in self.names.values() if name not in self.wanted):
            notes.append("checkpoint: names of wrappers taken off")
        if self.surplus:
            notes.append(f"checkpoint: left out {some(self.surplus)}")
        if self.absent:
            notes.append(f"checkpoint: has no {', '.join(self.absent)}, which evaluation skips")
        return tuple(notes)


def fits_of(
    place: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], lenient: bool
) -> Iterator[Fit]:
    """The ways in which the file's names may be the network's: as they are, then renamed."""
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
    """What stands before names of ``short`` in ``long``, the shortest first."""
    anchors = sorted(short, key=len)[-_ANCHORS:]
    found = {
        name.removesuffix(anchor)
        for anchor in anchors
        for name in long
        if name == anchor or name.endswith(f".{anchor}")
    }
    return sorted(found, key=len)


def _plain(name: str) -> str:
    """A name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPING)


def _first(name: str) -> str:
    return name.partition(".")[0].lower()


def _fits(found: Tensor, wanted: Tensor) -> bool:
    # Half precision becomes float exactly; integer codes read as float would be other numbers.
    same_kind = found.is_floating_point() == wanted.is_floating_point()
    return same_kind and found.layout == wanted.layout and found.shape == wanted.shape


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
