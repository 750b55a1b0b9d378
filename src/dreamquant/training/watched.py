"""A network with the taps of a run, and its view of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dreamquant.errors import MethodError
from dreamquant.networks.channel_statistics import batch_statistics, full_precision
from dreamquant.networks.outputs import as_one
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import Output, Tap, Value

Read = tuple[Tensor, dict[Tap[Any], Any]]


class Watched:
    """A network with the taps that terms read inside it.

    Args:
        network: in eval mode.
        example: normalised images, used to check that the network has what the taps read.
        taps: the taps that terms declare.

    Raises:
        NetworkError: the network lacks what a tap reads.
    """

    def __init__(self, network: nn.Module, example: Tensor, taps: Sequence[Tap[Any]]) -> None:
        self.network, self.taps = network, tuple(taps)
        for tap in self.taps:
            tap.require(network, example)
        self._tapped = _Tapped(network, self.taps)
        self._call: Callable[[Tensor], Sequence[Tensor]] = self._tapped

    def compile(self) -> None:
        """Use compiled graphs from now on."""
        from dreamquant.training.compiled import Compiled

        compiled = Compiled(self._tapped)
        self._call = lambda images: _several(compiled(images))

    def read(self, images: Tensor, *, compiled: bool = True) -> Read:
        """The output (B, classes), float32, and the value of each tap.

        Several outputs become one row of values for each image, see
        :func:`dreamquant.networks.outputs.as_one`.

        Args:
            images: (B, C, H, W), normalised.
            compiled: whether to use compiled graphs, where there are any.
        """
        tensors = self._call(images) if compiled else self._tapped(images)
        return self._tapped.values(tensors)

    def read_with(
        self, images: Tensor, state: Mapping[str, Tensor], taps: Sequence[Tap[Any]] | None = None
    ) -> Read:
        """The same with other tensors in place of the network's own, which are not changed."""
        tapped = _Tapped(self.network, self.taps if taps is None else tuple(taps))
        return tapped.values(tapped.run(images, state))


def _several(result: Any) -> Sequence[Tensor]:
    return (result,) if isinstance(result, Tensor) else result


class _Tapped(nn.Module):
    """The network and its taps as one function of images, which returns only tensors."""

    def __init__(self, network: nn.Module, taps: tuple[Tap[Any], ...]) -> None:
        super().__init__()
        self.network, self.taps = network, taps
        self._counts: list[int] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.run(images, {})

    def run(self, images: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with ExitStack() as stack:
            collecting = [stack.enter_context(tap.watch(self.network)) for tap in self.taps]
            output = functional_call(self.network, dict(state), (images,))
        collected = [collect() for collect in collecting]
        # A compiled graph does not run this line: it returns as many tensors as when it was traced.
        self._counts = [len(tensors) for tensors in collected]
        rest = (tensor for tensors in collected for tensor in tensors)
        return (full_precision(as_one(output)), *rest)

    def values(self, tensors: Sequence[Tensor]) -> Read:
        output, *rest = tensors
        values: dict[Tap[Any], Any] = {}
        for tap, count in zip(self.taps, self._counts, strict=True):
            if count:
                values[tap] = tap.value(rest[:count])
            rest = rest[count:]
        return output, values


class View:
    """A network on a batch of images: one forward pass, which runs when it is first read.

    Args:
        run: the forward pass.
        allowed: taps that may be read; ``None`` allows all.
        reader: name of the reader, for the error.
        owner: ``teacher`` or ``student``, for the error.
        elsewhere: a forward pass on other images, see :meth:`on`.
    """

    def __init__(
        self,
        run: Callable[[], Read],
        *,
        owner: str,
        allowed: Sequence[Tap[Any]] | None = None,
        reader: str = "",
        elsewhere: Callable[[Tensor], Read] | None = None,
    ) -> None:
        self._run, self._owner, self._elsewhere = run, owner, elsewhere
        self._allowed, self._reader = allowed, reader

    @cached_property
    def _read(self) -> Read:
        return self._run()

    @property
    def output(self) -> Tensor:
        """(B, classes), float32.

        Raises:
            MethodError: a term reads it without declaring it.
        """
        self._require(Output())
        return self._read[0]

    def __getitem__(self, tap: Tap[Value]) -> Value:
        """The value of a tap in the same forward pass.

        Raises:
            MethodError: a term reads it without declaring it, or the tap collected nothing.
        """
        self._require(tap)
        values = {**self._read[1], Output(): self._read[0]}
        if tap not in values:
            raise MethodError(
                f"{tap} of the {self._owner} collected nothing in a forward pass",
                remedy="leave out the terms that read it, or choose another method",
            )
        return cast(Value, values[tap])

    def limited_to(self, allowed: Sequence[Tap[Any]], reader: str) -> View:
        """The same view for a reader that declares its taps; both share the forward pass."""
        return View(
            lambda: self._read,
            owner=self._owner,
            allowed=allowed,
            reader=reader,
            elsewhere=self._elsewhere,
        )

    def on(self, images: Tensor) -> View:
        """The network on other images."""
        run = self._elsewhere
        assert run is not None  # a view of other images has no further ones
        return View(
            lambda: run(images), owner=self._owner, allowed=self._allowed, reader=self._reader
        )

    def _require(self, tap: Tap[Any]) -> None:
        if self._allowed is None or tap in self._allowed:
            return
        raise MethodError(
            f"{self._reader} reads {tap} of the {self._owner} without declaring it",
            remedy=f"list it in the term's {self._owner}_taps",
        )


class TeacherView(View):
    """The teacher on a step's images, and variants of this forward pass.

    Args:
        teacher: P.
        images: (B, C, H, W), normalised.
        random: generator of weight noise.
        run: the forward pass; ``None`` runs the teacher on the images.
        allowed: see :class:`View`.
        reader: see :class:`View`.
    """

    def __init__(
        self,
        teacher: Watched,
        images: Tensor,
        random: torch.Generator,
        *,
        run: Callable[[], Read] | None = None,
        allowed: Sequence[Tap[Any]] | None = None,
        reader: str = "",
    ) -> None:
        super().__init__(
            run or (lambda: teacher.read(images)), owner="teacher", allowed=allowed, reader=reader
        )
        self._teacher, self._images, self._random = teacher, images, random

    def limited_to(self, allowed: Sequence[Tap[Any]], reader: str) -> TeacherView:
        """The same view for a reader that declares its taps; both share the forward pass."""
        return TeacherView(
            self._teacher,
            self._images,
            self._random,
            run=lambda: self._read,
            # Every method reads the teacher's output, so it needs no declaration.
            allowed=(Output(), *allowed),
            reader=reader,
        )

    @cached_property
    def in_training_mode(self) -> View:
        """The same images with batch norm on the batch's own statistics; nothing is updated."""
        network = self._teacher.network
        # Updates go to these copies.
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

        def run() -> Read:
            with batch_statistics([norm for _, norm in batch_norms(network)]):
                return self._teacher.read_with(self._images, buffers, self._taps())

        return self._other(run)

    def on(self, images: Tensor) -> View:
        """The teacher on other images."""
        return self._other(lambda: self._teacher.read_with(images, {}, self._taps()))

    def under_weight_noise(self, noise: float) -> View:
        """A copy with Gaussian noise on its weights, in units of each weight tensor's deviation."""
        noisy = {
            name: weight + noise * weight.std() * self._drawn_like(weight)
            for name, weight in self._teacher.network.named_parameters()
            if weight.dim() > 1
        }
        return self._other(lambda: self._teacher.read_with(self._images, noisy, self._taps()))

    def _other(self, run: Callable[[], Read]) -> View:
        return View(run, owner="teacher", allowed=self._allowed, reader=self._reader)

    def _taps(self) -> tuple[Tap[Any], ...]:
        """The taps that a further forward pass has to collect: those that the reader declares."""
        if self._allowed is None:
            return self._teacher.taps
        return tuple(tap for tap in self._allowed if not isinstance(tap, Output))

    def _drawn_like(self, weight: Tensor) -> Tensor:
        return torch.randn(weight.shape, generator=self._random, device=weight.device)
