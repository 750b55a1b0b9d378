"""Generation of images: a method's pool is made, shard by shard, and stored for later runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from dreamquant.errors import MethodError, ResultError
from dreamquant.jobs import checkpoint
from dreamquant.jobs.bench import begin, set_up, throwaway
from dreamquant.jobs.budget import fit
from dreamquant.jobs.images import kept_images
from dreamquant.jobs.memory import sparing_memory
from dreamquant.jobs.outcome import plain
from dreamquant.jobs.progress import ProgressDisplay
from dreamquant.jobs.request import DreamRequest, asked
from dreamquant.jobs.resume import open_folder, with_settled_precision
from dreamquant.jobs.signals import HeldSignals
from dreamquant.jobs.watchers import Checkpoints, History, Record
from dreamquant.methods import METHODS, find_method
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.networks.failures import naming_lines
from dreamquant.networks.load import Network, load_network
from dreamquant.quantization.student import Student
from dreamquant.results.describe import describe_machine, describe_method, describe_network
from dreamquant.results.files import make_folder, read_tensors, write_bytes, write_json
from dreamquant.results.folder import CHECKPOINT
from dreamquant.results.heat import as_shown
from dreamquant.results.lock import alone_in
from dreamquant.results.pool import POOL, SCHEMA, SHEET, KeptPool, open_pool, write_shard
from dreamquant.results.samples import save_samples
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.kinds import KINDS
from dreamquant.synthesis.pool import Pool
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Run, run_to_the_end

_SHOWN = 40  # number of images on the contact sheet
_DRAWN = 256  # number of procedural images, if no count is given


def dream(
    network: str | Network, method: str | Method = "hast", *, out: str | Path, **options: Any
) -> KeptPool:
    """Make the images of a method and store them in a folder, for any number of later runs.

    Each batch is a shard of its own, which is written when it is done. So memory does not grow with
    the count, and a resumed run makes the same pool.

    Args:
        network: the teacher, by name or loaded, as for :func:`dreamquant.quantize`.
        method: a method that stores its images, or a procedural kind such as ``dead-leaves``.
        out: folder of the pool.
        options: those of :class:`dreamquant.jobs.request.DreamRequest`, by name; the command line
            has the same options.

    Returns:
        The pool, opened.

    Raises:
        DreamQuantError: an argument cannot be used; the subclass says which part.
        KeyboardInterrupt: the run was stopped; its state has been saved.
    """
    started = time.monotonic()
    folder = Path(out)
    request = asked(DreamRequest, {"method": method, **options})
    request = with_settled_precision(request, folder)
    teacher = network if isinstance(network, Network) else load_network(network)
    with alone_in(folder):
        if (folder / POOL).exists():
            return _finished(folder, request, teacher)
        _make(folder, request, teacher, started)
    return open_pool(folder, teacher.input)


def _finished(folder: Path, request: DreamRequest, teacher: Network) -> KeptPool:
    if not request.resume:
        raise ResultError(
            f"{folder} already holds a pool",
            where="--out",
            remedy="give another folder, or delete this one",
        )
    pool = open_pool(folder, teacher.input)
    wanted = _configuration(request, teacher, _dreaming(request, teacher))
    checkpoint.require_same_run(pool.manifest["configuration"], wanted, folder)
    return pool


def _make(folder: Path, request: DreamRequest, teacher: Network, started: float) -> None:
    method = _dreaming(request, teacher)
    configuration = _configuration(request, teacher, method)
    saved = open_folder(folder, configuration, resume=request.resume)
    bench = _bench(request, teacher, method)
    with naming_lines(bench.teacher, bench.example()), sparing_memory(bench.device):
        if saved is not None:
            record = Shards(**saved["record"])
            method = method.lasting(record.iterations)
        else:
            method = _within_budget(method, bench, request, started)
            record = Shards(iterations=method.iterations)
        run, images = begin(bench, method)
        if saved is not None:
            with checkpoint.fitting(folder / CHECKPOINT):
                run.load_state_dict(saved["run"])
        _run(folder, run, record, configuration, request, record.writer(folder, cast(Pool, images)))
    _show(folder, record.shards[0]["file"], teacher)
    manifest = {
        "schema": SCHEMA,
        "network": describe_network(teacher),
        "method": describe_method(method, request.preset),
        "request": {"command": "dream", **request.record()},
        "seed": request.seed,
        **record.described(),
        **describe_machine(bench.device),
        "configuration": configuration,
    }
    write_json(folder / POOL, plain(manifest))
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _bench(request: DreamRequest, teacher: Network, method: Method) -> Bench:
    nobody = Student(nn.Identity())  # losses of pools read only the teacher
    return set_up(teacher, teacher.module, nobody, method, request, request.accelerator())


def _within_budget(method: Method, bench: Bench, request: DreamRequest, started: float) -> Method:
    if request.seconds is None:
        return method
    left = started + request.seconds - time.monotonic()
    return fit(method, left, lambda shorter: begin(throwaway(bench), shorter)[0]).method


def _show(folder: Path, shard: str, teacher: Network) -> None:
    """Write the contact sheet of the first images."""
    held = read_tensors(folder / shard)[0]
    images, classes, confidence = (
        held[name][:_SHOWN] for name in ("images", "classes", "confidence")
    )
    shown, spec = as_shown(images.float(), teacher.input)
    save_samples(folder / SHEET, shown, spec, classes, confidence)


def _run(
    folder: Path,
    run: Run,
    record: Record,
    configuration: Mapping[str, Any],
    request: DreamRequest,
    write: Callable[[Run, Any], None],
) -> None:
    display = ProgressDisplay(quiet=request.quiet, verbose=request.verbose)
    saving = Checkpoints(folder / CHECKPOINT, write_bytes, configuration, record)
    signals = HeldSignals(display.say, saving.save)
    make_folder(folder / CHECKPOINT)
    with display, signals:
        # Shards are written before checkpoints, so that every shard in a checkpoint is on disk.
        run_to_the_end(run, [History(record), write, display, saving, signals])


@dataclass
class Shards(Record):
    """The shards that a run has written so far.

    Attributes:
        shards: as :func:`dreamquant.results.pool.write_shard` describes each of them.
    """

    shards: list[dict[str, Any]] = field(default_factory=list)

    def writer(self, folder: Path, pool: Pool) -> Callable[[Run, Any], None]:
        """A watcher that moves images from the pool into a shard as soon as there are any."""

        def write(run: Run, _: Any) -> None:
            if pool.ready:
                images, targets = pool.take()
                teacher = run.bench.teacher
                entry = write_shard(folder, len(self.shards), images, targets, teacher)
                self.shards.append(entry)

        return write

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        per_image = ("classes", "confidence")
        return {
            "count": sum(shard["images"] for shard in self.shards),
            "dtype": "float16",
            "mib": sum(shard["bytes"] for shard in self.shards) / 2**20,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "phases": self.phases,
            "losses": self.losses[-1:],
            **{name: [x for shard in self.shards for x in shard[name]] for name in per_image},
            "shards": [
                {name: value for name, value in shard.items() if name not in per_image}
                for shard in self.shards
            ],
        }


def _dreaming(request: DreamRequest, teacher: Network) -> Method:
    """The method's images and nothing else, as many as were asked for."""
    if isinstance(request.method, str) and request.method in KINDS:
        method = _drawing(request.method)
    else:
        method = find_method(_known(request.method))
    method = method.resolved(request.preset, teacher.input.shape)
    images = kept_images(method, "--method")
    if request.count is not None:
        images = cast(Any, replace)(images, size=request.count)
    return replace(method, images=images, recovery=()).lasting(request.iterations)


def _known(method: str | Method) -> str | Method:
    if isinstance(method, Method) or method.split("+")[0] in METHODS or ":" in method:
        return method
    raise MethodError(
        f"there is no method and no kind of images {method!r}",
        where="--method",
        remedy=f"give one that `dreamquant methods` lists, or {', '.join(KINDS)}",
    )


def _drawing(kind: str) -> Method:
    paper = Paper("none: drawn by a recipe", "here", "DreamQuant", "nothing", "all of it")
    images = Procedural(kind=KINDS[kind], size=_DRAWN)
    presets = {"quick": Preset(), "paper": Preset()}
    return Method(kind, "drawn without any network", paper, images, (), presets=presets)


def _configuration(request: DreamRequest, teacher: Network, method: Method) -> dict[str, Any]:
    device = request.accelerator().device.type
    return plain(
        {
            "network": teacher.weights_sha256,
            **request.configuration(device),
            "method": method.name,
        }
    )
