"""The published methods, one in each file; the command line lists the table ``METHODS``."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TypeVar

from dreamquant.errors import MethodError
from dreamquant.methods.acq import acq
from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.adasg import adasg
from dreamquant.methods.agm import agm
from dreamquant.methods.ait import ait
from dreamquant.methods.akt import akt
from dreamquant.methods.auto import auto
from dreamquant.methods.brecq import brecq
from dreamquant.methods.dqdg import dqdg
from dreamquant.methods.dsg import dsg
from dreamquant.methods.dynadfq import dynadfq
from dreamquant.methods.gapssg import gapssg
from dreamquant.methods.gdfq import gdfq
from dreamquant.methods.genie import genie
from dreamquant.methods.granq import granq
from dreamquant.methods.hast import hast
from dreamquant.methods.intraq import intraq
from dreamquant.methods.kmdfq import kmdfq
from dreamquant.methods.maskaq import maskaq
from dreamquant.methods.method import AddOn, Method
from dreamquant.methods.mimiq import mimiq
from dreamquant.methods.minutes import minutes
from dreamquant.methods.nagel import nagel
from dreamquant.methods.plf import plf
from dreamquant.methods.psaq_vit import psaq_vit
from dreamquant.methods.psaq_vit_v2 import psaq_vit_v2
from dreamquant.methods.qdrop import qdrop
from dreamquant.methods.qimera import qimera
from dreamquant.methods.qwt import qwt
from dreamquant.methods.ris import ris
from dreamquant.methods.sadag import sadag
from dreamquant.methods.sardfq import sardfq
from dreamquant.methods.smi import smi
from dreamquant.methods.squant import squant
from dreamquant.methods.synq import synq
from dreamquant.methods.texq import texq
from dreamquant.methods.zaq import zaq
from dreamquant.methods.zeroq import zeroq
from dreamquant.networks.user_file import names_user_file, read_user_file

Part = TypeVar("Part")

METHODS: dict[str, Method] = {
    "auto": auto,
    "gdfq": gdfq,
    "adasg": adasg,
    "adadfq": adadfq,
    "granq": granq,
    "acq": acq,
    "kmdfq": kmdfq,
    "qimera": qimera,
    "zaq": zaq,
    "zeroq": zeroq,
    "dsg": dsg,
    "intraq": intraq,
    "hast": hast,
    "plf": plf,
    "texq": texq,
    "genie": genie,
    "sadag": sadag,
    "brecq": brecq,
    "qdrop": qdrop,
    "qwt": qwt,
    "squant": squant,
    "nagel": nagel,
    "minutes": minutes,
    "psaq_vit": psaq_vit,
    "psaq_vit_v2": psaq_vit_v2,
    "mimiq": mimiq,
    "sardfq": sardfq,
    "maskaq": maskaq,
    "dqdg": dqdg,
    "gapssg": gapssg,
    # Published as add-ons; by themselves they use the base method that their papers name first.
    "ris": replace(gdfq + ris, name="ris"),
    "agm": replace(gdfq + agm, name="agm"),
    "synq": replace(hast + synq, name="synq"),
    "akt": replace(adadfq + akt, name="akt"),
    "ait": replace(gdfq + ait, name="ait"),
    "dynadfq": replace(gdfq + dynadfq, name="dynadfq"),
    "smi": replace(psaq_vit + smi, name="smi"),
}
ADD_ONS: dict[str, AddOn] = {
    "ris": ris,
    "agm": agm,
    "synq": synq,
    "akt": akt,
    "ait": ait,
    "dynadfq": dynadfq,
    "smi": smi,
}


def find_method(name: str | Method) -> Method:
    """The method of that name, ``BASE`` or ``BASE+ADDON+…``; BASE may be ``FILE.py:NAME``.

    A method given as an object is returned unchanged.

    Raises:
        MethodError: there is no such method, and the error names the nearest one; or the parts
            conflict.
    """
    if isinstance(name, Method):
        return name
    base, *added = name.split("+")
    method = _own_method(base) if names_user_file(base) else _look_up(base, METHODS, "method")
    for add_on in added:
        method = method + _look_up(add_on, ADD_ONS, "add-on")
    return method


def _look_up(name: str, table: dict[str, Part], kind: str) -> Part:
    if name not in table:
        near = difflib.get_close_matches(name.lower(), table, n=1, cutoff=0)
        raise MethodError(
            f"there is no {kind} {name!r}",
            where="--method",
            remedy=f"did you mean {near[0]!r}? `dreamquant methods` lists them all",
        )
    return table[name]


def _own_method(name: str) -> Method:
    method = read_user_file(name, MethodError).attribute()
    if not isinstance(method, Method):
        raise MethodError(
            f"{name} is no dreamquant.Method but a {type(method).__name__}",
            where="--method",
            remedy="examples/my_method.py shows one",
        )
    return method
