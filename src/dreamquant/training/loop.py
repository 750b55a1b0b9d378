"""The alternating game: the generator invents images, the student learns on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from dreamquant.methods.method import Recipe
from dreamquant.quantization.layers import Student
from dreamquant.synthesis.generators import build_generator
from dreamquant.synthesis.views import Mixup
from dreamquant.terms.contract import Weighted
from dreamquant.training.finite import require_finite_losses, require_finite_networks
from dreamquant.training.optimizers import Adam, NesterovSGD
from dreamquant.training.step import Batch, Chance, Step, Teacher

Losses = dict[str, Tensor]
Watcher = Callable[["Training", dict[str, float] | None], None]


class Training:
    """A run's whole state, and one iteration of it.

    Args:
        recipe: losses and numbers.
        teacher: P, on the accelerator's device.
        student: Q, likewise.
        image: channels, height, width.
        classes: number of labels.
        seed: of the generator's initial weights, the noise and the labels.
        accelerator: device, precision and processes.

    Attributes:
        iteration: how many are done.
    """

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        student: Student,
        *,
        image: tuple[int, int, int],
        classes: int,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.teacher, self.student = recipe, teacher, student
        self.classes, self.accelerator = classes, accelerator
        self.iteration = 0
        device = accelerator.device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = build_generator(
                image, classes, recipe.latent, centred=recipe.centres is not None
            ).to(device)
        # Processes draw different noise; everything else about them is equal.
        self.chance = Chance.seeded(seed + 1 + accelerator.process_index, device)
        schedule = recipe.schedule
        self.student_parameters = [p for p in student.parameters() if p.requires_grad]
        self.generator_parameters = list(self.generator.parameters())
        self.student_optimizer = NesterovSGD(
            self.student_parameters,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )
        self.generator_optimizer = Adam(self.generator_parameters, betas=(0.5, 0.999))

    @property
    def student_learns(self) -> bool:
        """Whether the student's warm-up is over."""
        return self.iteration >= self.recipe.schedule.student_warmup

    @property
    def observes(self) -> bool:
        """Whether activation ranges still follow the images."""
        return self.iteration < self.recipe.schedule.range_warmup

    def draw_batch(self, size: int) -> Batch:
        """New images for targets drawn as the method has it."""
        recipe, random = self.recipe, self.chance.random
        targets = recipe.targets.sample(size, self.classes, random)
        centres = None if recipe.centres is None else recipe.centres.sample(size, random)
        return self.invent(targets, centres)

    def invent(self, targets: Tensor, centres: Tensor | None = None) -> Batch:
        """New images for ``targets``, labels (B,) or soft ones, and ``centres`` (B, 2)."""
        size = len(targets), self.recipe.latent
        random = self.chance.random
        noise = torch.randn(size, generator=random, device=random.device)
        return Batch(self.generator(noise, targets, centres), targets, noise, centres)

    def step(self) -> Losses:
        """Play one iteration; both networks answer the same images before either learns.

        Returns:
            Every term's unweighted loss by name, scalars left on the device.
        """
        self.student.observe(self.observes)
        with self._autocast():
            step = self._step_on(self.draw_batch(self.recipe.schedule.batch))
            if self.observes:
                _ = step.student.logits
            losses: Losses = {}
            if self.student_learns:
                self._teach_student(step, losses)
            self._teach_generator(step, losses)
        self._update()
        self.iteration += 1
        return losses

    def _autocast(self) -> AbstractContextManager[None]:
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def _step_on(self, batch: Batch) -> Step:
        return Step(
            batch, self.teacher, self.student, self.chance, student_learns=self.student_learns
        )

    def _teach_student(self, step: Step, losses: Losses) -> None:
        loss = _total(self.recipe.student_terms, step, losses, "student")
        if self.recipe.mixup is not None:
            # Ranges follow the images that were dreamed, once per iteration.
            self.student.observe(False)
            mixed = self._step_on(self._mixed(step, self.recipe.mixup))
            loss = (loss + _total(self.recipe.student_terms, mixed, losses, "mixed")) / 2
        # The generator's loss, where it asks the student, goes back through the same forward pass.
        shared = self.recipe.generator_asks_student
        gradients = torch.autograd.grad(
            loss, self.student_parameters, retain_graph=shared, allow_unused=True
        )
        self._assign(self.student_parameters, gradients)
        if self.recipe.schedule.clip is not None:
            nn.utils.clip_grad_norm_(self.student_parameters, self.recipe.schedule.clip)

    def _mixed(self, step: Step, mixup: Mixup) -> Batch:
        soft = step.targets
        if not soft.is_floating_point():
            soft = F.one_hot(soft, self.classes).float()
        images, targets = mixup.mix(step.images.detach(), soft, self.chance.dice)
        return Batch(images, targets, step.noise)

    def _teach_generator(self, step: Step, losses: Losses) -> None:
        loss = _total(self.recipe.generator_terms, step, losses, "generator")
        gradients = torch.autograd.grad(loss, self.generator_parameters)
        self._assign(self.generator_parameters, gradients)

    def _assign(self, parameters: Sequence[Tensor], gradients: Iterable[Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            shared = self.accelerator.num_processes > 1 and gradient is not None
            parameter.grad = self.accelerator.reduce(gradient, "mean") if shared else gradient

    def _update(self) -> None:
        schedule = self.recipe.schedule
        self.generator_optimizer.step(schedule.generator_rate(self.iteration))
        if self.student_learns:
            self.student_optimizer.step(schedule.student_rate(self.iteration))

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit; tensors and plain values."""
        return {
            "iteration": self.iteration,
            "generator": self.generator.state_dict(),
            "student": self.student.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "random": self.chance.random.get_state(),
            "dice": self.chance.dice.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.iteration = state["iteration"]
        self.generator.load_state_dict(state["generator"])
        self.student.load_state_dict(state["student"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.student_optimizer.load_state_dict(state["student_optimizer"])
        self.chance.random.set_state(state["random"].cpu())
        self.chance.dice.set_state(state["dice"].cpu())


def _total(terms: Sequence[Weighted], step: Step, losses: Losses, player: str) -> Tensor:
    values = [weighted.term(step) for weighted in terms]
    names = [weighted.name for weighted in terms]
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        # A term may come twice, with other numbers.
        before = names[:i].count(name)
        losses[f"{player}/{name}{before + 1 if before else ''}"] = value.detach()
    return torch.stack(
        [weighted.weight * value for weighted, value in zip(terms, values, strict=True)]
    ).sum()


class Unread:
    """Losses that wait on the device: fetching them after every iteration would stall it."""

    def __init__(self) -> None:
        self._names: list[list[str]] = []
        self._values: list[Tensor] = []

    def add(self, losses: Losses) -> None:
        """Take note of an iteration."""
        self._names.append(list(losses))
        self._values.append(torch.stack(list(losses.values())))

    def read(self, iteration: int) -> dict[str, float]:
        """Fetch all that wait in one transfer.

        Args:
            iteration: the last one noted.

        Returns:
            Its losses.

        Raises:
            TrainingError: a loss is not finite; it names the first such iteration and its terms.
        """
        values = iter(torch.cat(self._values).tolist())
        first = iteration - len(self._names) + 1
        for at, names in enumerate(self._names, first):
            losses = dict(zip(names, values, strict=False))
            require_finite_losses(losses, at)
        self._names.clear()
        self._values.clear()
        return losses


LOG_EVERY = 10


def run(training: Training, watchers: Sequence[Watcher]) -> None:
    """Play until the schedule ends.

    Args:
        training: fresh or resumed.
        watchers: each called after every iteration with the run and, every ``LOG_EVERY``
            iterations and at the end, its losses (otherwise ``None``: reading them would stall
            the device).

    Raises:
        TrainingError: a loss is not finite, or in the end a network.
    """
    total = training.recipe.schedule.iterations
    unread = Unread()
    while training.iteration < total:
        unread.add(training.step())
        due = training.iteration % LOG_EVERY == 0 or training.iteration == total
        read = unread.read(training.iteration) if due else None
        for watch in watchers:
            watch(training, read)
    require_finite_networks(training)
    training.accelerator.wait_for_everyone()
