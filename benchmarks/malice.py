"""Malicious input: unusual values, damaged bytes, pickles with code, archive bombs."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

CANARY = "executed"
_HEADER = 8  # bytes of a safetensors file before its header

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((-1, 0, 1, 2**31, 2**63, 10**30, -(2**63), 1e308, float("nan"), float("inf"))),
    st.sampled_from(("", "../../etc/passwd", "/dev/zero", "w4a4", "x" * 5000, "\ud800", "%s{0}")),
    st.integers(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 70000), max_size=5),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
)


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with up to three values replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            return draw(ODD)
        place, key = draw(st.sampled_from(places))
        if draw(st.integers(0, 4)) == 0:
            del place[key]
        else:
            place[key] = draw(ODD)
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that were cut, overwritten, repeated or added to."""
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 64))
        change = draw(st.sampled_from(("cut", "overwrite", "insert", "repeat", "remove")))
        new = draw(st.binary(max_size=length) | st.sampled_from((b"\xff" * 8, b"\0" * 8)))
        data = {
            "cut": data[:at],
            "overwrite": data[:at] + new + data[at + len(new) :],
            "insert": data[:at] + new + data[at:],
            "repeat": data[: at + length] + data[at:],
            "remove": data[:at] + data[at + length :],
        }[change]
    return data


class Malicious:
    """A pickle that makes a folder when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.victim,)


@st.composite
def reheaded(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file with wrong names, types, shapes or offsets in its header."""
    length = int.from_bytes(data[:_HEADER], "little")
    header = json.loads(data[_HEADER : _HEADER + length])
    name = draw(st.sampled_from([key for key in header if key != "__metadata__"]))
    types = ("F64", "BF16", "I64", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "U8", "Q9")
    fields = {
        "dtype": st.sampled_from(types),
        "shape": st.lists(st.sampled_from((0, 1, 3, 2**31, 2**62)), max_size=4),
        "data_offsets": st.lists(st.sampled_from((0, 1, 8, 2**40, 2**63)), max_size=3),
    }
    for field in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        header[name][field] = draw(fields[field])
    changed = draw(st.just(header) | altered(header))
    encoded = json.dumps(changed).encode("utf-8", "surrogatepass")
    size = draw(st.sampled_from((len(encoded), len(encoded) + 1, 2**40, 2**64 - 1, 0)))
    return size.to_bytes(_HEADER, "little") + encoded + data[_HEADER + length :]


def pickles(folder: Path, state: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    """Files of ``torch.save``: damaged, with other contents, or with code that makes ``CANARY``."""
    whole = _saved(state)
    evil = Malicious(folder / CANARY)
    contents = (evil, [evil], dict(state) | {"x": evil}, torch.zeros(2).expand(2**40, 2), 3, None)
    odd = [_saved(content) for content in contents]
    return damaged(whole) | st.sampled_from([*odd, pickle.dumps(evil), bomb("archive/data.pkl")])


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def bomb(name: str, start: bytes = b"", size: int = 2**27) -> bytes:
    """A zip that unpacks to a thousand times its size."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as f,
    ):
        f.write(start)
        for _ in range(size // 2**20):
            f.write(bytes(2**20))
    return buffer.getvalue()
