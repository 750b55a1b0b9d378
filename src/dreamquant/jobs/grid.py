"""The grid of a sweep: a file of networks and options, and its cells."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dreamquant.errors import ResultError
from dreamquant.jobs.request import AUTO, QuantizeRequest, asked
from dreamquant.methods import find_method
from dreamquant.quantization.scheme import Bits
from dreamquant.results.files import sha256_file

_SECTIONS = ("network", "grid", "except")
_OF_A_NETWORK = ("network", "weights", "input", "mean", "std", "classes", "data")
_NAMED = ("bits", "method", "seed")
# Every run of a sweep resumes and prints nothing; the machine decides its number of threads.
_OF_THE_SWEEP = ("resume", "quiet", "verbose", "threads")
_DIGITS = 8


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        network: its name in the grid file.
        opened: how to open it: ``network``, and if given ``weights``, ``input``, ``mean``, ``std``,
            ``classes``.
        options: of :class:`~dreamquant.jobs.request.QuantizeRequest`, by name.
        key: SHA-256 of all of these and of the network's weights; cells with equal keys have equal
            results.
    """

    network: str
    opened: Mapping[str, Any]
    options: Mapping[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Folder of its result: readable, and different for every cell."""
        named = [
            self.network,
            *(str(self.options[name]) for name in _NAMED if name in self.options),
        ]
        return re.sub(r"[^\w.+-]+", "_", "-".join(named)) + f"-{self.key[:_DIGITS]}"

    def describe(self) -> str:
        """A description of the cell in one line."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.network}: {options}"


def read_grid(path: Path) -> list[Cell]:
    """The cells of a grid file, in order; each is checked before any of them runs.

    Args:
        path: a TOML file. ``[network.NAME]`` states how to open a network, and the ``data`` to
            measure it on. ``[grid]`` gives each option of ``dreamquant quantize`` one value or a
            list. ``[[except]]`` removes the cells that match everything it names. Paths are
            relative to the file's folder.

    Raises:
        DreamQuantError: the file cannot be read, or a cell could never run.
    """
    given = _read(path)
    networks, grid = given.get("network", {}), given.get("grid", {})
    if not networks:
        raise _wrong(path, "it names no network", "write a section [network.NAME]")
    for name, network in networks.items():
        _require_network(path, name, network)
    axes = {name: value if isinstance(value, list) else [value] for name, value in grid.items()}
    _require_options(path, axes)
    spanned = [
        (name, dict(zip(axes, values, strict=True)))
        for name in networks
        for values in itertools.product(*axes.values())
    ]
    exceptions = given.get("except", [])
    kept = [each for each in spanned if not any(_matches(*each, one) for one in exceptions)]
    if not kept:
        raise _wrong(path, "no cell is left", "check its lists and [[except]] sections")
    return [_cell(path.parent, name, networks[name], options) for name, options in kept]


def _read(path: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(
            f"the grid cannot be read: {error}",
            where=str(path),
            remedy="check the path; it has to be a text file",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"it is not TOML: {error}", "mend that line") from error
    unknown = [name for name in given if name not in _SECTIONS]
    if unknown:
        raise _wrong(path, f"there is no section {unknown[0]!r}", f"write {', '.join(_SECTIONS)}")
    return given


def _require_network(path: Path, name: str, network: Any) -> None:
    if not isinstance(network, dict) or "network" not in network:
        remedy = f'write network = "torchvision:resnet18" under [network.{name}]'
        raise _wrong(path, f"[network.{name}] does not say which network", remedy)
    unknown = [key for key in network if key not in _OF_A_NETWORK]
    if unknown:
        raise _wrong(
            path,
            f"[network.{name}] cannot have {unknown[0]!r}",
            f"it takes {', '.join(_OF_A_NETWORK)}",
        )


def _require_options(path: Path, axes: Mapping[str, list[Any]]) -> None:
    own = [name for name in axes if name in _OF_THE_SWEEP or name == "data"]
    if own:
        remedy = "give it to its network" if own == ["data"] else "leave it out"
        raise _wrong(path, f"[grid] cannot have {own[0]!r}", remedy)
    empty = [name for name, values in axes.items() if not values]
    if empty:
        raise _wrong(path, f"{empty[0]} in [grid] is an empty list", "give it a value")


def _matches(network: str, options: Mapping[str, Any], exception: Mapping[str, Any]) -> bool:
    cell = {"network": network, **options}
    return all(
        cell.get(name) in (value if isinstance(value, list) else [value])
        for name, value in exception.items()
    )


def _cell(folder: Path, name: str, network: Mapping[str, Any], options: dict[str, Any]) -> Cell:
    opened = {key: network[key] for key in _OF_A_NETWORK if key in network and key != "data"}
    options |= {"data": network["data"]} if "data" in network else {}
    request = asked(QuantizeRequest, options)
    find_method(request.method)
    if request.bits != AUTO:
        Bits.parse(request.bits)
    weights = opened.get("weights")
    identity = {
        "opened": opened,
        "weights": _content(folder / weights.partition("#")[0]) if weights else None,
        "request": request.record(),
    }
    text = json.dumps(identity, sort_keys=True)
    return Cell(name, opened, options, hashlib.sha256(text.encode()).hexdigest())


@cache
def _content(weights: Path) -> str:
    """SHA-256 of a weights file: other weights under the same name are another cell."""
    if not weights.is_file():
        raise ResultError(
            "the weights file does not exist",
            where=str(weights),
            remedy="check the path: it is relative to the grid's folder",
        )
    return sha256_file(weights)


def _wrong(path: Path, what: str, remedy: str) -> ResultError:
    return ResultError(f"{path.name} is no grid: {what}", where=str(path), remedy=remedy)
