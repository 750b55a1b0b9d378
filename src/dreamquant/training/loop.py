"""The alternating game: the generator invents images, the student learns on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.methods.method import Recipe
from dreamquant.methods.schedule import Schedule
from dreamquant.quantization.layers import Student
from dreamquant.quantization.norms import match_norms
from dreamquant.synthesis.generators import build_generator
from dreamquant.synthesis.views import Mixup
from dreamquant.terms.contract import Weighted
from dreamquant.training.finite import require_finite_losses, require_finite_networks
from dreamquant.training.optimizers import Adam, NesterovSGD
from dreamquant.training.step import Batch, Chance, Network, Request, Step, Teacher

_MATCHING = 16  # batches that batch norms are matched on

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
        accumulate: parts that each process takes its share of a batch in, one after another. What
            is computed over a batch is then computed over a part of it.
        compiled: whether the networks run as compiled graphs. Where ranges follow the images the
            student does not; nor does a generator whose batch norms meet other processes.

    Attributes:
        iteration: how many are done.

    Raises:
        TrainingError: a batch has no so many equal parts.
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
        accumulate: int = 1,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.teacher, self.student = recipe, teacher, student
        self.compiled = compiled
        self.classes, self.accelerator = classes, accelerator
        self.iteration = 0
        device = accelerator.device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = build_generator(
                image, classes, recipe.latent, centred=recipe.centres is not None
            ).to(device)
        # Processes draw the same for all of them, and each makes images for its own part of it.
        self.chance = Chance.seeded(seed + 1, device)
        schedule = recipe.schedule
        self.accumulate, self.parts = accumulate, accumulate * accelerator.num_processes
        _require_equal_parts(recipe, self.parts)
        self.student_parameters = [p for p in student.parameters() if p.requires_grad]
        self.generator_parameters = list(self.generator.parameters())
        self._answer: Network = student
        self._generate: Callable[..., Tensor] = self.generator
        if compiled:
            from dreamquant.training.compiled import Compiled

            teacher.compile()
            self._answer = Compiled(student)
            if accelerator.num_processes == 1:
                self._generate = Compiled(self.generator)
        self.student_optimizer = _student_optimizer(self.student_parameters, schedule)
        self.generator_optimizer = Adam(self.generator_parameters, betas=(0.5, 0.999))

    @property
    def student_learns(self) -> bool:
        """Whether the student's warm-up is over."""
        return self.iteration >= self.recipe.schedule.student_warmup

    @property
    def _matches_norms(self) -> bool:
        """Whether this is the iteration before which batch norms are mended."""
        schedule = self.recipe.schedule
        set_by = max(schedule.student_warmup, schedule.range_warmup)
        return self.recipe.norms == "matched" and self.iteration == set_by

    @property
    def observes(self) -> bool:
        """Whether activation ranges still follow the images."""
        return self.iteration < self.recipe.schedule.range_warmup

    def ask(self, size: int, targets: Tensor | None = None) -> Request:
        """Draw what images are to be.

        Args:
            size: how many.
            targets: in place of those that the method draws.
        """
        recipe, random = self.recipe, self.chance.asked
        if targets is None:
            targets = recipe.targets.sample(size, self.classes, random)
        centres = None if recipe.centres is None else recipe.centres.sample(size, random)
        noise = torch.randn((size, recipe.latent), generator=random, device=random.device)
        return Request(targets, noise, centres)

    def invent(self, asked: Request) -> Batch:
        """Images as they were asked for."""
        centres = () if asked.centres is None else (asked.centres,)
        images = self._generate(asked.noise, asked.targets, *centres)
        return Batch(images, asked.targets, asked.noise, asked.centres)

    def step(self) -> Losses:
        """Play one iteration; both networks answer the same images before either learns.

        Returns:
            Every term's unweighted loss by name, scalars left on the device.
        """
        self._forget_gradients()
        if self._matches_norms:
            self._match_norms()
        if self.compiled and self.accelerator.device.type == "cuda":
            # What recorded graphs returned before is read no more.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        asked = self.ask(self.recipe.schedule.batch)
        first = distributed.rank() * self.accumulate
        losses: Losses = {}
        with distributed.together():
            for index in range(first, first + self.accumulate):
                self._play(asked.part(index, self.parts), losses)
            self._update()
        self.iteration += 1
        return losses

    def _match_norms(self) -> None:
        # Every process makes all of these images, and finds the same.
        batches = (self.ask(self.recipe.schedule.batch) for _ in range(_MATCHING))
        self.student.observe(False)
        images = (self.invent(asked).images for asked in batches)
        match_norms(self.student, self.teacher.network, images)

    def _play(self, asked: Request, losses: Losses) -> None:
        """Let both learn from some images: gradients and losses are added to those of others."""
        self.student.observe(self.observes)
        with self._autocast():
            step = self._step_on(self.invent(asked))
            if self.observes:
                _ = step.student.logits
            if self.student_learns:
                self._teach_student(step, losses)
            self._teach_generator(step, losses)

    def _forget_gradients(self) -> None:
        for parameter in (*self.student_parameters, *self.generator_parameters):
            parameter.grad = None

    def _autocast(self) -> AbstractContextManager[None]:
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def _step_on(self, batch: Batch) -> Step:
        answer = self.student if self.observes else self._answer
        return Step(batch, self.teacher, answer, self.chance, student_learns=self.student_learns)

    def _teach_student(self, step: Step, losses: Losses) -> None:
        loss = self._total(self.recipe.student_terms, step, losses, "student")
        if self.recipe.mixup is not None:
            # Ranges follow the images that were dreamed, once per iteration.
            self.student.observe(False)
            mixed = self._step_on(self._mixed(step, self.recipe.mixup))
            loss = (loss + self._total(self.recipe.student_terms, mixed, losses, "mixed")) / 2
        # The generator's loss, where it asks the student, goes back through the same forward pass.
        shared = self.recipe.generator_asks_student
        gradients = torch.autograd.grad(
            loss, self.student_parameters, retain_graph=shared, allow_unused=True
        )
        _add(self.student_parameters, gradients)

    def _mixed(self, step: Step, mixup: Mixup) -> Batch:
        soft = step.targets
        if not soft.is_floating_point():
            soft = F.one_hot(soft, self.classes).float()
        images, targets = mixup.mix(step.images.detach(), soft, self.chance.dice)
        return Batch(images, targets, step.noise)

    def _teach_generator(self, step: Step, losses: Losses) -> None:
        loss = self._total(self.recipe.generator_terms, step, losses, "generator")
        gradients = torch.autograd.grad(loss, self.generator_parameters)
        _add(self.generator_parameters, gradients)

    def _total(self, terms: Sequence[Weighted], step: Step, losses: Losses, player: str) -> Tensor:
        """The weighted sum, as a part of what the whole of this process's share will be."""
        values = [weighted.term(step) / self.accumulate for weighted in terms]
        for name, value in zip(_names(terms, player), values, strict=True):
            losses[name] = losses.get(name, 0) + value.detach()
        return torch.stack(
            [weighted.weight * value for weighted, value in zip(terms, values, strict=True)]
        ).sum()

    def _update(self) -> None:
        schedule = self.recipe.schedule
        learning = (*self.student_parameters, *self.generator_parameters)
        distributed.average([p.grad for p in learning if p.grad is not None])
        self.generator_optimizer.step(schedule.generator_rate(self.iteration))
        if self.student_learns:
            if schedule.clip is not None:
                nn.utils.clip_grad_norm_(self.student_parameters, schedule.clip)
            self.student_optimizer.step(schedule.student_rate(self.iteration))

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit; tensors and plain values."""
        return {
            "iteration": self.iteration,
            "generator": self.generator.state_dict(),
            "student": self.student.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "chance": self.chance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.iteration = state["iteration"]
        self.generator.load_state_dict(state["generator"])
        self.student.load_state_dict(state["student"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.student_optimizer.load_state_dict(state["student_optimizer"])
        self.chance.load_state_dict(state["chance"])


def _student_optimizer(parameters: Sequence[Tensor], schedule: Schedule) -> Adam | NesterovSGD:
    if schedule.student_optimizer == "adam":
        return Adam(parameters, betas=(0.9, 0.999))
    return NesterovSGD(parameters, momentum=schedule.momentum, weight_decay=schedule.weight_decay)


def _require_equal_parts(recipe: Recipe, parts: int) -> None:
    together = 1 if recipe.centres is None else recipe.centres.copies
    batch = recipe.schedule.batch
    if parts < 1 or batch % (parts * together):
        raise TrainingError(
            f"a batch of {batch} images has no {parts} equal parts"
            + (f" of whole groups of {together}" if together > 1 else ""),
            where="--accumulate times the number of processes",
            remedy="choose numbers whose product divides the batch",
        )


def _add(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            parameter.grad = parameter.grad + gradient


def _names(terms: Sequence[Weighted], player: str) -> list[str]:
    """``player/Term`` of each; a term may come twice, with other numbers."""
    names = [weighted.name for weighted in terms]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{player}/{name}{n + 1 if n else ''}" for name, n in zip(names, before, strict=True)]


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
        with distributed.together():
            values = iter(distributed.mean(torch.cat(self._values)).tolist())
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
