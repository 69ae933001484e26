"""What benchmarks/throughput.py measures: a model, its floor, a long file."""

import contextlib
import resource
import time
from pathlib import Path
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_vae.nnet import convolution


def cpu_seconds():
    """CPU time of this process and of its children that have ended."""
    own, children = (
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_mb():
    """Largest resident set of this process so far."""
    # The peak that getrusage gives is that of the parent, where it had more.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def clock(device, threads):
    """The clock of a measurement: CPU time where one thread does all the work."""
    if device == "cpu" and threads == 1:
        return time.process_time
    return lambda: _wall(device)


def _wall(device):
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call, now, budget, least=3):
    """Median seconds of a call, repeated for about ``budget`` seconds."""
    call()
    return medians_in_turn((call,), now, budget, least)[0]


def medians_in_turn(calls, now, budget, least=5):
    """Median seconds of calls that take turns: all see the same machine."""
    taken, start = [], now()
    while len(taken) < least or now() - start < budget:
        taken.append([])
        for call in calls:
            before = now()
            call()
            taken[-1].append(now() - before)
    return [sorted(each)[len(each) // 2] for each in zip(*taken, strict=True)]


class _Products(TorchDispatchMode):
    """Collects the sizes (M, K, N) of the matrix products of what runs inside."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        out = func(*args, **(kwargs or {}))
        if name in ("mm", "addmm", "addmm_"):
            a, b = args[-2:]
            self._add(a.shape[0], a.shape[1], b.shape[1])
        elif name == "convolution":
            x, weight = args[:2]
            channels, width = weight.shape[1], weight.shape[2]
            self._add(out.shape[0] * out.shape[2], channels * width, weight.shape[0])
        return out

    def _add(self, *size):
        self.sizes[size] = self.sizes.get(size, 0) + 2 * size[0] * size[1] * size[2]


def best_product(step, device, now, shapes=5):
    """The matrix product of the best rate, of the largest that a step is made of.

    Returns
    -------
    flops : float
        Of one call.
    call : callable
    shape : tuple of int
        (M, K, N)
    """
    with _Products() as products, _single_thread():
        step()
    candidates = []
    for size in sorted(products.sizes, key=products.sizes.get, reverse=True)[:shapes]:
        m, k, n = size
        a = torch.randn(m, k, device=device)
        b = torch.randn(k, n, device=device)

        # So many that the first, whose matrices a step has pushed out of the cache,
        # weighs little.
        times = max(10, int(2e9 / (2 * m * k * n)))
        flops = times * 2 * m * k * n

        def several(a=a, b=b, times=times):
            for _ in range(times):
                torch.mm(a, b)

        rate = flops / seconds_of(several, now, 0.2)
        candidates.append((rate, flops, several, size))
    return max(candidates, key=lambda candidate: candidate[0])[1:]


def step_flops(step):
    """FLOPs of the matrix products of a training step, forward and backward.

    Those of convolutions are PyTorch's: as products of rows they have some more, of the
    rows between utterances. Only products of the calling thread are counted, so there
    is but one.
    """

    def in_place(into, a, b, **_):
        return 2 * a[0] * a[1] * b[1]

    with (
        mock.patch.object(convolution, "as_products", lambda *_: False),
        FlopCounterMode(
            display=False, custom_mapping={torch.ops.aten.addmm_: in_place}
        ) as counter,
        _single_thread(),
    ):
        step()
    return counter.get_total_flops()


@contextlib.contextmanager
def _single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Trainer:
    """Training steps of a model, as train.py makes them.

    Arguments
    ---------
    hparams : dict
        Of a YAML of hparams/.
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, hparams, device):
        self.features = hparams["features"].to(device)
        self.model = hparams["autoencoder"].to(device).train()
        self.parameters = list(self.model.parameters())
        self.optimiser = hparams["opt_class"](self.parameters)
        self.norm = hparams["max_grad_norm"]
        self.device = device

    def step(self, batch):
        """One step; the frames of speech in it."""
        feats, lengths = batch.to(self.device).feats
        output = self.model(self.features.normalise(feats, lengths), lengths)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return int(round(float(lengths.sum()) * feats.shape[1]))


def measure_training(trainer, loader, frame_shift, threads, budget):
    """Seconds of a step, share of waiting, speech for each second, the floor.

    Arguments
    ---------
    trainer : Trainer
    loader : torch.utils.data.DataLoader
        With persistent workers, where it has any, and a cache that is warm.
    frame_shift : float
        In seconds.
    threads : int
        That torch uses.
    budget : float
        Seconds to spend.

    Returns
    -------
    dict
    """
    now = clock(trainer.device, threads)
    batches = []
    for batch in loader:
        # All, so that the workers are at the start of an epoch again.
        batches = [*batches, batch][:8]
    for batch in batches[:3]:
        trainer.step(batch)
    waited, frames, took, steps = 0.0, 0, 0.0, 0
    begin = before = time.perf_counter()
    for batch in loader:
        waited += time.perf_counter() - before
        start = now()
        frames += trainer.step(batch)
        took += now() - start
        steps += 1
        before = time.perf_counter()
        if before - begin > budget and steps >= 8:
            break
    result = {
        "steps": steps,
        "step_seconds": took / steps,
        "batch_seconds": frames * frame_shift / steps,
        "train_speed": frames * frame_shift / took,
        "waiting": waited / (time.perf_counter() - begin),
    }

    def all_steps():
        for batch in batches:
            trainer.step(batch)

    # The same batches for both: those of an epoch differ in size.
    flops = step_flops(all_steps) / len(batches)
    product_flops, product, shape = best_product(
        lambda: trainer.step(batches[0]), trainer.device, now
    )
    each, seconds = medians_in_turn((all_steps, product), now, budget)
    rate, each = product_flops / seconds, each / len(batches)
    return result | {
        "gflop_per_step": flops / 1e9,
        "matmul_gflops": rate / 1e9,
        "matmul_shape": list(shape),
        "floor_seconds": flops / rate,
        "step_over_floor": each / (flops / rate),
    }


def measure_inference(encoder, wavs, files, device, threads, budget):
    """Speech for each second of ``encode_batch`` and of ``encode_file``.

    Arguments
    ---------
    encoder : speechbrain_vae.inference.FeatureEncoder
    wavs : torch.Tensor
        Shape [B, S], at the rate of the encoder; padded with zeros.
    files : list of (str, float)
        Paths, and their seconds.
    device, threads, budget
        As elsewhere here.

    Returns
    -------
    dict
    """
    now = clock(device, threads)
    speech = float((wavs != 0).sum()) / encoder.sample_rate
    batch = seconds_of(lambda: encoder.encode_batch(wavs), now, budget)

    def all_files():
        for path, _ in files:
            encoder.encode_file(path)

    each = seconds_of(all_files, now, budget, least=2)
    return {
        "batch_speed": speech / batch,
        "file_speed": sum(seconds for _, seconds in files) / each,
    }
