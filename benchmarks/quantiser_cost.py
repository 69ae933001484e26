"""Time and memory of quantisers, ours and others, beside the floor."""

import contextlib
import importlib.util
import io
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from speechbrain_vae.nnet.quantisers import (
    NSVQ,
    BinaryQuantizer,
    DiVeQ,
    GumbelVQ,
    SFDiVeQ,
    SpaceFillingVQ,
    VectorQuantizer,
)

CELLS = tuple(itertools.product((4096, 16384), (64, 128), (256, 512, 1024, 4096)))
LARGEST = (16384, 128, 4096)


def floor(x, codebook):
    """What any exact quantiser has to do: one product, an argmin and a gather."""
    with torch.no_grad():
        norms = codebook.square().sum(1) / 2
        scores = torch.addmm(norms, x, codebook.t(), alpha=-1)
        return codebook[scores.argmin(1)]


class Method:
    """A quantiser under test.

    Arguments
    ---------
    module : torch.nn.Module
        Started already, where it starts from data.
    call : callable
        ``call(module, x)`` gives what stands in for the frames [N, D], and a loss or
        None.
    """

    def __init__(self, module, call):
        self.module = module
        self.call = call

    def step(self, x, upstream):
        """Forward, backward and update."""
        self.module.train()
        self.module.zero_grad(set_to_none=True)
        x.grad = None
        latent, loss = self.call(self.module, x)
        if loss is None:
            latent.backward(upstream)
        else:
            torch.autograd.backward([latent, loss], [upstream, torch.ones_like(loss)])

    def eval(self, x, _):
        """Forward alone."""
        self.module.eval()
        with torch.no_grad():
            self.call(self.module, x)


def ours(cls, **options):
    """A factory for a quantiser of this package."""

    def call(module, x):
        out = module(x.unsqueeze(0))
        return out.latent.squeeze(0), out.loss if out.loss.requires_grad else None

    def make(dim, size, warm_up):
        module = cls(dim, size, **options)
        # A start from data is no part of a step.
        while hasattr(module, "codebook") and not _started(module.codebook):
            module(warm_up().unsqueeze(0))
        return Method(module, call)

    return make


def _started(codebook):
    return bool(getattr(codebook, "started", True))


def lucidrains(**options):
    """A factory for vector-quantize-pytorch."""

    def call(module, x):
        latent, _, loss = module(x.unsqueeze(0))
        loss = loss.sum()
        return latent.squeeze(0), loss if loss.requires_grad else None

    def make(dim, size, warm_up):
        from vector_quantize_pytorch import VectorQuantize

        module = VectorQuantize(
            dim, size, decay=0.99, commitment_weight=0.25, **options
        )
        if options.get("kmeans_init"):
            module(warm_up().unsqueeze(0))
        return Method(module, call)

    return make


def diveq(name):
    """A factory for a class of the diveq package."""

    def call(module, x):
        if not module.training and hasattr(module, "inference"):
            return module.inference(x)[0], None
        return module(x)[0], None

    def make(dim, size, warm_up):
        import diveq as package

        options = {"skip_iters": 2, "avg_iters": 1} if name == "SFDIVEQ" else {}
        with contextlib.redirect_stdout(io.StringIO()):
            module = getattr(package, name)(size, dim, allow_warning=False, **options)
            for _ in range(3):
                module(warm_up())
        return Method(module, call)

    return make


def piq(dim, size, warm_up):
    """SpeechBrain's own straight-through quantiser, with the two losses of VQ-VAE."""
    from speechbrain.lobes.models.PIQ import VectorQuantizationStraightThrough

    label = torch.zeros(1)

    def call(module, x):
        frames = x.view(1, len(x), 1, -1)
        latent, indices = VectorQuantizationStraightThrough.apply(
            frames, module.weight.detach(), label, 1, False
        )
        codes = module.weight.index_select(0, indices)
        loss = torch.nn.functional.mse_loss(x.detach(), codes)
        loss = loss + 0.25 * torch.nn.functional.mse_loss(x, codes.detach())
        return latent.view_as(x), loss if loss.requires_grad else None

    return Method(torch.nn.Embedding(size, dim), call)


METHODS = {
    "VectorQuantizer": ours(VectorQuantizer),
    "VectorQuantizer, gradient": ours(VectorQuantizer, codebook_update="gradient"),
    "SpaceFillingVQ": ours(SpaceFillingVQ, growth_steps=0),
    "SFDiVeQ": ours(SFDiVeQ, growth_steps=0),
    "NSVQ": ours(NSVQ),
    "DiVeQ": ours(DiVeQ),
    "GumbelVQ": ours(GumbelVQ),
    "BinaryQuantizer": ours(BinaryQuantizer),
}
if importlib.util.find_spec("vector_quantize_pytorch"):
    METHODS["vector-quantize-pytorch"] = lucidrains()
    METHODS["vector-quantize-pytorch, k-means, revival"] = lucidrains(
        kmeans_init=True, threshold_ema_dead_code=2
    )
METHODS["SpeechBrain PIQ"] = piq
if importlib.util.find_spec("diveq"):
    METHODS["diveq DIVEQ"] = diveq("DIVEQ")
    METHODS["diveq SFDIVEQ"] = diveq("SFDIVEQ")

TIMED = {
    "VectorQuantizer step": ("VectorQuantizer", "step"),
    "eval": ("VectorQuantizer", "eval"),
    "SpaceFillingVQ step": ("SpaceFillingVQ", "step"),
    "eval ": ("SpaceFillingVQ", "eval"),
    "NSVQ step": ("NSVQ", "step"),
    "DiVeQ step": ("DiVeQ", "step"),
    "SFDiVeQ step": ("SFDiVeQ", "step"),
    "GumbelVQ step": ("GumbelVQ", "step"),
    "vector-quantize-pytorch step": ("vector-quantize-pytorch", "step"),
    "PIQ step": ("SpeechBrain PIQ", "step"),
    "diveq DIVEQ step": ("diveq DIVEQ", "step"),
    "diveq SFDIVEQ step": ("diveq SFDIVEQ", "step"),
}


def speed(arguments):
    """A row for each N, D, K: the floor in ms, and the methods over it."""
    timed = {k: v for k, v in TIMED.items() if v[0] in METHODS}
    for frames, dim, size in CELLS[:2] if arguments.quick else CELLS:
        torch.manual_seed(0)
        x, upstream = torch.randn(2, frames, dim)
        x.requires_grad_()
        codebook = torch.randn(size, dim)
        made = {
            name: METHODS[name](dim, size, lambda f=frames, d=dim: torch.randn(f, d))
            for name in {name for name, _ in timed.values()}
        }
        calls = {k: getattr(made[n], action) for k, (n, action) in timed.items()}
        # Each with the floor alone: the memory that many others take and give back
        # would be fresh memory for the next, which the kernel has to clear.
        pairs = {
            name: _interleaved(
                {"floor": lambda x, _, c=codebook: floor(x, c), "it": call},
                (x, upstream),
                3 if arguments.quick else 9,
            )
            for name, call in calls.items()
        }
        base = statistics.median(pair["floor"] for pair in pairs.values())
        row = {"N": frames, "D": dim, "K": size, "floor, ms": round(1e3 * base, 2)}
        yield row | {k: round(p["it"] / p["floor"], 2) for k, p in pairs.items()}


def _interleaved(calls, inputs, rounds):
    seconds = {name: [] for name in calls}
    for count in range(rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            call(*inputs)
            # The first round warms up.
            if count:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def memory(arguments):
    """A row for each method: the peak of a step, of evaluation, and of the start."""
    if not Path("/proc/self/clear_refs").is_file():
        raise SystemExit("benchmarks: memory is measured on Linux alone")
    for name in METHODS:
        print(f"  {name}", file=sys.stderr, flush=True)
        row = {"method": name}
        for action in ("step", "eval", "start"):
            process = subprocess.run(
                [sys.executable, __file__, name, action],
                env=os.environ
                # Every block of 64 KiB or more goes back to the system when freed, so
                # that what is resident is what is in use.
                | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if process.returncode:
                raise SystemExit(f"benchmarks: {name} {action}: {process.stderr}")
            last = process.stdout.strip().splitlines()[-1]
            row[f"{action}, MiB"] = None if last == "none" else round(float(last), 1)
        yield row


def _resident(key):
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _peak(call):
    """Peak resident MiB of a call beyond what is resident before it."""
    # 5 resets the high-water mark; see proc(5).
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _measure_memory(name, action):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames, dim, size = LARGEST
    x, upstream = torch.randn(2, frames, dim)
    x.requires_grad_()
    small = torch.randn(64, dim, requires_grad=True)
    if action == "start":
        # Only ours have a start that one step does not hold.
        made = METHODS[name](dim, size, lambda: small)
        codebook = getattr(made.module, "codebook", None)
        if not hasattr(codebook, "started"):
            print("none")
            return
        module = type(made.module)(dim, size)
        made.step(small, torch.zeros_like(small))
        made.module = module

        def call():
            for _ in range(4):
                made.step(x, upstream)

        print(_peak(call))
        return
    made = METHODS[name](dim, size, lambda: torch.randn(4096, dim))
    # Loads what is loaded at first use, without growing buffers of N frames.
    getattr(made, action)(small, torch.zeros_like(small))
    print(_peak(lambda: getattr(made, action)(x, upstream)))


if __name__ == "__main__":
    _measure_memory(*sys.argv[1:])
