"""How well codebooks fit: speech frames of unseen speakers, and a mixture."""

import importlib.util
import statistics
import time

import torch
from frames import load_frames

from speechbrain_vae.nnet.quantisers import (
    NSVQ,
    DiVeQ,
    SFDiVeQ,
    SpaceFillingVQ,
    VectorQuantizer,
)
from speechbrain_vae.nnet.quantisers.nearest import nearest
from speechbrain_vae.nnet.quantisers.usage import count_codes, perplexity

SIZE = 256


def train(quantiser, batches, rate=1e-2):
    """Codes [K, D] of one of our quantisers after a pass over the batches."""
    quantiser.train()
    learned = list(quantiser.parameters())
    optimiser = torch.optim.Adam(learned, rate) if learned else None
    for x in batches:
        out = quantiser(x.unsqueeze(0))
        if optimiser:
            optimiser.zero_grad()
            error = (out.latent - x).square().sum(-1).mean()
            (out.loss + error).backward()
            optimiser.step()
    with torch.no_grad():
        return quantiser.eval().lookup(torch.arange(SIZE).unsqueeze(1))


def vector(**options):
    """Fits a VectorQuantizer."""

    def fit(batches, dim, seed):
        return train(VectorQuantizer(dim, SIZE, seed=seed, **options), batches)

    return fit


def ours(cls, **options):
    """Fits a quantiser that has no seed of its own."""
    return lambda batches, dim, seed: train(cls(dim, SIZE, **options), batches)


def lucidrains(**options):
    """Fits vector-quantize-pytorch."""

    def fit(batches, dim, seed):
        from vector_quantize_pytorch import VectorQuantize

        module = VectorQuantize(dim, SIZE, decay=0.99, **options)
        for x in batches:
            module(x.unsqueeze(0))
        return module.codebook.detach()

    return fit


def diveq_reference(batches, dim, seed):
    """Fits DIVEQ of the diveq package."""
    from diveq import DIVEQ

    module = DIVEQ(SIZE, dim, allow_warning=False, verbose=False)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for x in batches:
        optimiser.zero_grad()
        (module(x)[0] - x).square().sum(-1).mean().backward()
        optimiser.step()
    return module.codebook.detach()


METHODS = {
    "VectorQuantizer": vector(),
    "VectorQuantizer, gradient": vector(codebook_update="gradient"),
    "NSVQ": ours(NSVQ),
    "DiVeQ": ours(DiVeQ),
    # All corners from the start.
    "SpaceFillingVQ": ours(SpaceFillingVQ, growth_steps=0),
    "SFDiVeQ": ours(SFDiVeQ, growth_steps=0),
}
if importlib.util.find_spec("vector_quantize_pytorch"):
    METHODS["vector-quantize-pytorch"] = lucidrains()
    METHODS["vector-quantize-pytorch, k-means, revival"] = lucidrains(
        kmeans_init=True, threshold_ema_dead_code=2
    )
if importlib.util.find_spec("diveq"):
    METHODS["diveq DIVEQ"] = diveq_reference


def minibatch_kmeans(x, seed):
    """The opponent: centres of scikit-learn's MiniBatchKMeans."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(SIZE, batch_size=4096, n_init=3, random_state=seed)
    return torch.from_numpy(model.fit(x.numpy()).cluster_centers_).float()


def speech(arguments):
    """Rows: squared error per band of held-out speakers, and codes in use."""
    splits = load_frames(arguments.data_folder, arguments.cache)
    held_out = splits["test"].features
    epochs, seeds = (1, 1) if arguments.quick else (4, 3)

    def result(name, fit):
        errors, used, load, seconds = [], [], [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            begin = time.process_time()
            codes = fit(seed)
            seconds.append(time.process_time() - begin)
            indices, squared = nearest(held_out, codes)
            counts = count_codes(indices.unsqueeze(1), SIZE)[0]
            errors.append(squared.mean().item() / codes.shape[1])
            used.append((counts > 0).float().mean().item())
            load.append(perplexity(counts.double()).item())
        return {
            "method": name,
            "MSE": round(statistics.mean(errors), 5),
            "MSE of seeds": ", ".join(f"{e:.4f}" for e in errors),
            "codes in use": round(statistics.mean(used), 3),
            "perplexity": round(statistics.mean(load), 1),
            "CPU s": round(statistics.mean(seconds), 1),
        }

    opponent = result(
        "scikit-learn MiniBatchKMeans",
        lambda seed: minibatch_kmeans(splits["train"].features, seed),
    )
    yield {"method": opponent["method"], "ratio": 1.0} | opponent
    for name, fit in METHODS.items():
        row = result(
            name,
            lambda seed, fit=fit: fit(
                splits["train"].batches(4096, epochs, seed), 80, seed
            ),
        )
        ratio = round(row["MSE"] / opponent["MSE"], 4)
        yield {"method": name, "ratio": ratio} | row


def mixture_batches(number, seed, size=2000, dim=64, clusters=40):
    """Batches [size, dim] of an isotropic mixture whose centres are always the same."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(clusters, dim, generator=generator)
    generator.manual_seed(seed + 1)
    for _ in range(number):
        which = torch.randint(clusters, (size,), generator=generator)
        yield centres[which] + 0.3 * torch.randn(size, dim, generator=generator)


def mixture(arguments):
    """Rows: share of codes in use on a mixture of 40 clusters."""
    held_out = torch.cat(list(mixture_batches(50, seed=1000)))
    for name, fit in METHODS.items():
        used, load, errors = [], [], []
        for seed in range(1 if arguments.quick else 3):
            torch.manual_seed(seed)
            codes = fit(mixture_batches(300, seed), 64, seed)
            indices, squared = nearest(held_out, codes)
            counts = count_codes(indices.unsqueeze(1), SIZE)[0]
            used.append((counts > 0).float().mean().item())
            load.append(perplexity(counts.double()).item())
            errors.append(squared.mean().item() / 64)
        yield {
            "method": name,
            "codes in use": round(statistics.mean(used), 3),
            "perplexity": round(statistics.mean(load), 1),
            "MSE": round(statistics.mean(errors), 4),
        }
