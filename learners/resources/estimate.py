"""How long each phase takes and how much memory, from the size of a model and what a GPU can do.

A roofline: decoding is bound by memory (every step reads the weights and the cache of the live rows) or by what a step
costs the host, whichever is more; reading prompts, scoring and training are bound by matrix products. Every figure
below is a data sheet's (hardware.py), a published measurement, or an assumption that says so. A run's own record
replaces all of it: `mutual-env plan --like RUN`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from learners.resources.demand import COMPUTING, GIB, Demand, Needs
from learners.resources.hardware import Gpu
from learners.resources.shapes import ModelShape

BANDWIDTH_SHARE = 0.75
"""Of the data sheet's bandwidth, while decoding. With it and ENGINE_STEP_SECONDS, 256 rows of Llama-3.1-8B at 1,000
tokens come to 11,700 tokens/s on an H100; vLLM's published figure for that pair is about 12,500."""

MFU = ((0.6e9, 0.111), (4.0e9, 0.217), (8.0e9, 0.33))
"""Share of the peak while training, by parameters: prime-rl on an H100 (Qwen3-0.6B full RL, Qwen3-4B), torchtitan
without compile on eight (Llama-3.1-8B). Between them on a line over the logarithm, beyond them the last."""

ENGINE_STEP_SECONDS = 2e-3
"""Assumed: what a decoding step costs vLLM beside the GPU's work, CUDA graphs on. Published figures lie between 0.1 and
6 ms (docs/resources.md, with what comes of half and of twice)."""

EAGER_KERNELS, LAUNCH_SECONDS = 33, 7e-6
"""Of our own sampler: kernels a layer and step (counted: 908 for 28 layers, 536 for 16); seconds each (assumed)."""

VERIFICATIONS = 370.0
"""A second and core, of simple checks (measured)."""

FILE_BANDWIDTH = 0.49e9
"""Bytes a second from the trainer into vLLM through a file in shared memory (measured: 538 MB in 1.1 s)."""

FIRST_ROOM = 512
"""New tokens that a row of our own sampler has room for at first."""

MASTER_BYTES, GRADIENT_BYTES = 12, 4  # of each trained parameter: float32 master and two moments; float32 gradient
SPARE = 1.05  # allocators do not use every byte
BUCKETS = 64


@dataclass(frozen=True, slots=True)
class Work:
    """One round of one policy. Response lengths are taken to be exponential with this mean, cut at `longest`: most end
    early, some run to the limit."""

    prompts: int
    group: int
    prompt: int
    mean: int
    longest: int

    @property
    def samples(self) -> int:
        return self.prompts * self.group

    def alive(self, at: float) -> float:
        """The share of samples that are longer than so many tokens."""
        return math.exp(-at / self.mean) if at < self.longest else 0.0

    @property
    def tokens(self) -> float:
        """Of responses, all samples together."""
        return -self.samples * self.mean * math.expm1(-self.longest / self.mean)

    @property
    def typical(self) -> float:
        """Tokens of a response, on average."""
        return self.tokens / self.samples

    @property
    def room(self) -> float:
        """Tokens that a row of our own sampler has room for at the worst moment, on average over all rows: the room
        doubles when it is full, for the rows that are still there."""
        widest, room = float(min(FIRST_ROOM, self.longest)), min(FIRST_ROOM, self.longest)
        while room < self.longest:
            left = self.alive(room)
            room = min(2 * room, self.longest)
            widest = max(widest, left * room)
        return widest

    @property
    def trained(self) -> float:
        return self.samples * self.prompt + self.tokens


@dataclass(frozen=True, slots=True)
class Setup:
    """How a policy is sampled and trained: on `gpus` GPUs, data parallel, its optimizer's state cut among them."""

    gpus: int = 1
    engine: bool = False  # vLLM samples, else the torch learner
    split: int = 1  # the GPUs that one engine's weights are cut among
    width: int = 2  # bytes of a number
    lora: bool = False
    checkpointing: bool = False
    micro_batch: int = 4096
    rows: int = 256  # decoded side by side on one GPU at most
    logits: int = 128 << 20
    transfer: float = FILE_BANDWIDTH


@dataclass(frozen=True, slots=True)
class Estimate:
    """`peaks`: bytes of each phase on one GPU, of the `gpu` that it was reckoned for. `bound`: in which share of a
    phase the GPU itself is the bottleneck; in the rest it waits for its host."""

    seconds: Mapping[str, float]
    peaks: Mapping[str, int]
    resident: int
    gpu: Gpu
    offload_seconds: float
    bound: Mapping[str, float]

    @property
    def memory(self) -> dict[str, int]:
        """What a phase asks for: a whole GPU where it would take more, since an estimate alone keeps no run from
        starting."""
        return {phase: min(peak, self.gpu.memory) for phase, peak in self.peaks.items()}

    @property
    def weights(self) -> int:
        """What stays on a GPU between phases."""
        return min(self.resident, self.gpu.memory)

    def misfit(self, policy: str, phases: Iterable[str]) -> str:
        """Which of these phases a GPU has no room for, and what would help; "" where all fit."""
        phase = max(phases, key=lambda each: self.peaks[each], default=None)
        if phase is None or self.peaks[phase] <= self.gpu.memory:
            return ""
        return (
            f"policy {policy!r}, phase {phase!r} is estimated to take {self.peaks[phase] / GIB:.3g} GiB on each GPU, "
            f"and {self.gpu.name} has {self.gpu.memory / GIB:.3g}: set lora_rank, gradient_checkpointing or a smaller "
            "micro_batch_tokens, spread the policy over more GPUs, or take larger ones"
        )

    def demand(self, policy: str, gpus: int) -> Demand:
        """Of a policy that nobody described. Its verification runs beside its GPUs."""
        computing = {
            phase: Needs(self.seconds[phase], gpus=1.0, gang=gpus, memory=self.memory[phase]) for phase in COMPUTING
        }
        phases = {**computing, "verify": Needs(self.seconds["verify"])}
        return Demand(policy, phases, self.weights, self.offload_seconds)


def estimate(shape: ModelShape, gpu: Gpu, work: Work, setup: Setup) -> Estimate:
    """Of one round. Everything that a policy samples is scored once and trained on once."""
    resident = _resident(shape, setup)
    rows = _rows(shape, gpu, work, setup, resident)
    decoding, bound = _decode(shape, gpu, work, setup, rows)
    forward = 2.0 * shape.parameters / (gpu.flops * mfu(shape.parameters) * setup.gpus)  # seconds a token
    reading = forward * work.prompts * work.prompt
    passes = (4.0 if setup.checkpointing else 3.0) * (2 / 3 if setup.lora else 1.0)
    training = passes * forward * work.trained
    sync = shape.parameters * setup.width / setup.transfer if setup.engine else 0.0
    act = decoding + reading
    return Estimate(
        seconds={
            "act": act,
            "verify": work.samples / VERIFICATIONS,
            "score": forward * work.trained,
            "update": training + sync,
        },
        peaks=_peaks(shape, gpu, work, setup, rows),
        resident=resident,
        gpu=gpu,
        offload_seconds=2 * resident / gpu.host,
        bound={"act": (bound * decoding + reading) / act, "score": 1.0, "update": training / (training + sync)},
    )


def _peaks(shape: ModelShape, gpu: Gpu, work: Work, setup: Setup, rows: int) -> dict[str, int]:
    """Of each phase on one GPU. A cache takes what there is, if it has room for one row."""
    resident = _resident(shape, setup)
    held, row = resident + _engine(shape, setup), _row(shape, work, setup)
    # Activations kept for the backward: 17 numbers of the width a layer, or one a layer and those of one layer.
    kept = shape.layers + 17 if setup.checkpointing else 17 * shape.layers
    scratch = 3 * setup.logits + setup.micro_batch * shape.hidden * setup.width * kept
    gradients = 0 if setup.lora else GRADIENT_BYTES * shape.parameters // setup.gpus
    act = max(SPARE * (held + row), min(SPARE * (held + rows * row), gpu.memory))
    peaks = {"act": act, "score": SPARE * (resident + scratch), "update": SPARE * (resident + scratch + gradients)}
    return {phase: int(peak) for phase, peak in peaks.items()}


def mfu(parameters: float) -> float:
    """The share of a GPU's peak that training reaches."""
    points = [(math.log(size), share) for size, share in MFU]
    at = math.log(parameters)
    if at <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return points[-1][1]


def _resident(shape: ModelShape, setup: Setup) -> int:
    """Bytes on each GPU between phases: weights, and the trained parameters' masters and moments."""
    trained = 0 if setup.lora else MASTER_BYTES * shape.parameters // setup.gpus
    return shape.parameters * setup.width + trained


def _engine(shape: ModelShape, setup: Setup) -> int:
    """Bytes of an engine's own weights on each GPU, beside the trainer's state."""
    return shape.parameters * setup.width // setup.split if setup.engine else 0


def _row(shape: ModelShape, work: Work, setup: Setup) -> float:
    """Bytes of a sample while it is written, on average. An engine pages its cache, ours doubles the room of the rows
    that are left."""
    length = work.prompt + (work.typical if setup.engine else work.room)
    return length * shape.kv_bytes(setup.width) + shape.vocabulary * 12


def _rows(shape: ModelShape, gpu: Gpu, work: Work, setup: Setup, resident: int) -> int:
    """Samples side by side on one GPU."""
    each = -(-work.samples // setup.gpus)
    room = gpu.memory / SPARE - resident - _engine(shape, setup)
    return max(1, min(each, setup.rows, int(room // _row(shape, work, setup))))


def _decode(shape: ModelShape, gpu: Gpu, work: Work, setup: Setup, rows: int) -> tuple[float, float]:
    """Seconds of all steps, and the share of them in which reading memory takes longer than the rest of a step."""
    each = -(-work.samples // setup.gpus)
    passes = 1 if setup.engine else -(-each // rows)  # an engine refills its rows, ours takes whole groups
    full = work.tokens / setup.gpus / rows if each > rows and setup.engine else 0.0  # steps with every row in use
    seconds = bound = 0.0
    if full:
        seconds, bound = _steps(shape, gpu, setup, full - work.typical, rows, work.prompt + work.typical)
    for bucket in range(BUCKETS):
        at = (bucket + 0.5) * work.longest / BUCKETS
        live = max(1.0, (rows if each > rows else each / passes) * work.alive(at))
        took, of_it = _steps(shape, gpu, setup, work.longest / BUCKETS, live, work.prompt + at)
        seconds, bound = seconds + passes * took, bound + passes * of_it
    return seconds, bound / seconds


def _steps(shape: ModelShape, gpu: Gpu, setup: Setup, steps: float, rows: float, context: float) -> tuple[float, float]:
    read = shape.parameters * setup.width + rows * context * shape.kv_bytes(setup.width)
    memory = read / (gpu.bandwidth * BANDWIDTH_SHARE)
    products = 2.0 * shape.parameters * rows / (gpu.flops * 0.5)
    host = ENGINE_STEP_SECONDS if setup.engine else EAGER_KERNELS * LAUNCH_SECONDS * shape.layers
    work = max(memory, products)
    step = work + host if setup.engine else max(work, host)
    return max(0.0, steps) * step, max(0.0, steps) * step if work > step / 2 else 0.0
