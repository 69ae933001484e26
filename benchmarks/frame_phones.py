"""Frame phone accuracy: a linear probe of single frames."""

import copy

import torch

from speechbrain_vae.analysis.phones import ARPABET, SILENCE, fold_timit, plain


def phone_classes(entries):
    """The number of each phone; those of TIMIT are folded (Lee and Hon 1989).

    Arguments
    ---------
    entries : dict of str to dict
        Entries of each split, with ``phone_times``.

    Returns
    -------
    dict of str to int
        -1 for a phone that no training utterance has, or that folding leaves out.
    """
    phones = {
        split: {p for entry in part.values() for *_, p in entry["phone_times"]}
        for split, part in entries.items()
    }
    known = {plain(p) for p in phones["train"]} <= {*ARPABET, SILENCE}
    fold = plain if known else fold_timit
    names = sorted({name for name in map(fold, phones["train"]) if name is not None})
    every = set().union(*phones.values())
    return {p: names.index(fold(p)) if fold(p) in names else -1 for p in every}


def frame_labels(times, frames, frame_shift, first_frame, classes):
    """The phone at the centre of every frame, -1 where there is none.

    Arguments
    ---------
    times : list
        ``[start, end, phone]`` of each phone, in seconds.
    frames : int
        Number of frames.
    frame_shift, first_frame : float
        Of the frames' centres, in seconds.
    classes : dict
        Of :func:`phone_classes`.

    Returns
    -------
    torch.Tensor
        Long, shape [T]; -1 where there is no phone.
    """
    centres = first_frame + frame_shift * torch.arange(frames, dtype=torch.float64)
    # Times are decimal fractions; a centre on a border is of the phone that begins.
    centres += 1e-6
    labels = torch.full((frames,), -1)
    for start, end, phone in times:
        labels[(centres >= start) & (centres < end)] = classes[phone]
    return labels


def frames_and_labels(feats, entries, frame_shift, first_frame, classes):
    """Frames of a split that lie in a phone [N, size], and their phones [N]."""
    x, y = [], []
    for utt, entry in entries.items():
        frames = feats[utt]
        labels = frame_labels(
            entry["phone_times"], len(frames), frame_shift, first_frame, classes
        )
        x.append(frames[labels >= 0])
        y.append(labels[labels >= 0])
    return torch.cat(x), torch.cat(y)


class FrameProbe(torch.nn.Module):
    """Logits of single frames: an adapter and a linear layer.

    Arguments
    ---------
    adapter : speechbrain_vae.lobes.adapter.FeatureAdapter
        Fitted to the training set; copied.
    classes : int
        Number of phones.
    """

    def __init__(self, adapter, classes):
        super().__init__()
        self.adapter = copy.deepcopy(adapter)
        self.linear = torch.nn.Linear(adapter.output_size, classes)

    def forward(self, frames):
        """Logits [N, classes] of frames [N, size]."""
        return self.linear(self.adapter(frames.unsqueeze(0))[0])

    def fit(self, data, lr, epochs, seed, batch_size=1024):
        """Train by Adam with a falling learning rate.

        Arguments
        ---------
        data : tuple of torch.Tensor
            Frames [N, size] and their phones [N].
        lr : float
        epochs : int
        seed : int
        batch_size : int

        Returns
        -------
        FrameProbe
            Itself.
        """
        x, y = data
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(self.parameters(), lr=lr)
        steps = epochs * -(-len(x) // batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(batch_size):
                loss = torch.nn.functional.cross_entropy(self(x[rows]), y[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        return self

    @torch.no_grad()
    def accuracy(self, data):
        """Frames whose phone is right, in percent."""
        x, y = data
        logits = torch.cat([self(part) for part in x.split(65536)])
        return 100 * (logits.argmax(1) == y).double().mean().item()
