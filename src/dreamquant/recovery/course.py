"""The course of a run in stages: what each stage reached, and the best student so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.networks.outputs import as_one
from dreamquant.recovery.explained import Explained
from dreamquant.synthesis.probe import JUDGED, ProbeImages
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase


class Course:
    """The results of the stages so far, and the best student.

    Args:
        bench: networks of the run; its student has its first state, or that of a checkpoint.

    Attributes:
        agreements: agreement of each stage that has ended, in percent.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.agreements: list[float] = []
        self._first = _state(bench.student)
        self._best: dict[str, Tensor] | None = None

    def best_of(self, stages: int) -> float:
        """The best agreement of the first ``stages`` stages; lower than any agreement if none has
        ended.
        """
        return max(self.agreements[:stages], default=-1.0)

    def begin(self, *, anew: bool) -> None:
        """Give the student the state from which a stage starts."""
        state = self._first if anew or self._best is None else self._best
        self.bench.student.load_state_dict(state)

    def end(self, agreement: float) -> bool:
        """Keep the student if it is the best so far, otherwise restore the best.

        Returns:
            Whether it was kept.
        """
        better = agreement > self.best_of(len(self.agreements))
        self.agreements.append(agreement)
        if better:
            self._best = _state(self.bench.student)
            self.bench.fall_back = self.fall_back
        else:
            self.fall_back()
        return better

    def fall_back(self) -> None:
        """Give the student the best state so far."""
        assert self._best is not None
        self.bench.student.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """The agreements, the first state of the student and the best one."""
        return {"agreements": self.agreements, "first": self._first, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.agreements = list(state["agreements"])
        self._first, self._best = state["first"], state["best"]
        self.bench.fall_back = None if self._best is None else self.fall_back


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


class Beginning(Phase):
    """Gives the student the state from which a stage starts."""

    total = 1

    def __init__(self, course: Course, stage: str, *, anew: bool) -> None:
        super().__init__()
        self.name, self.course, self.anew = f"stage: {stage}", course, anew

    def step(self) -> Losses:
        """Give it."""
        self.course.begin(anew=self.anew)
        return {}


class Judging(Phase):
    """Measures agreement, one batch of probe images in each step; keeps the better student.

    Args:
        course: the stages so far.
        stage: name of the one that has ended.
        count: number of probe images.
        batch: images in one forward pass.
    """

    def __init__(self, course: Course, stage: str, count: int, batch: int) -> None:
        super().__init__()
        self.name = "measuring agreement on held-out probe images"
        self.course, self.stage, self.count, self.batch = course, stage, count, batch
        self.total = -(-count // batch)
        self.explained = Explained()
        self.probes = ProbeImages(course.bench, JUDGED)

    @torch.no_grad()
    def step(self) -> Losses:
        """Measure one batch; after the last one, keep the better student."""
        bench, begun = self.course.bench, self.done * self.batch
        images = self.probes.rows(torch.arange(begun, min(begun + self.batch, self.count)))
        student = bench.student.eval()
        student.observe(False)
        self.explained.add(as_one(bench.teacher(images)), as_one(student(images)))
        if self.done + 1 == self.total:
            self._conclude()
        return {}

    def _conclude(self) -> None:
        percent = self.explained.percent
        self.finding = {
            "stage": self.stage,
            "agreement": percent,
            "of": self.count,
            "kept": self.course.end(percent),
        }

    def state_dict(self) -> dict[str, Any]:
        """The outputs measured so far."""
        return self.explained.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.explained.load_state_dict(state)
