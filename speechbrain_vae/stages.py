"""Training in stages: some parts learn while the others stay as they are."""

import logging

logger = logging.getLogger(__name__)


class TrainingStages:
    """A list of stages, each with its epochs and the parts that learn in it.

    Greedy layer-wise pretraining (Bengio et al. 2007) is one stage a layer, then one
    for all of them. Residual blocks start as the identity, so that layers whose turn
    has not come leave the model as shallow as it was. What learns is a function of
    the epoch alone: a resumed run needs no state.

    Arguments
    ---------
    stages : list of dict
        Each with ``epochs``, a number, and ``train``, a list of parts of the model, as
        the names of their parameters begin up to a dot, or "all".

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    >>> stages = TrainingStages(
    ...     [{"epochs": 2, "train": ["0"]}, {"epochs": 1, "train": "all"}]
    ... )
    >>> stages.apply(model, epoch=1)
    >>> [p.requires_grad for p in model.parameters()]
    [True, True, False, False]
    >>> stages.apply(model, epoch=3)
    >>> all(p.requires_grad for p in model.parameters())
    True
    """

    def __init__(self, stages: list[dict]) -> None:
        for number, stage in enumerate(stages, 1):
            if not isinstance(stage, dict) or set(stage) != {"epochs", "train"}:
                raise ValueError(
                    f"stage {number} must have the keys epochs and train; got {stage}"
                )
            if not isinstance(stage["epochs"], int) or stage["epochs"] < 1:
                raise ValueError(
                    f"stage {number} must last at least 1 epoch; got {stage['epochs']}"
                )
        if not stages:
            raise ValueError("stages must name at least one stage")
        self.stages = stages

    @property
    def epochs(self):
        """Epochs of all stages together."""
        return sum(stage["epochs"] for stage in self.stages)

    def prefixes(self, epoch):
        """Parts that learn in this epoch, counted from 1; the last stage goes on."""
        for stage in self.stages:
            epoch -= stage["epochs"]
            if epoch <= 0:
                break
        return _prefixes(stage)

    def check(self, model, number_of_epochs: int):
        """Refuse stages that do not fit the model; warn of stages never reached.

        Arguments
        ---------
        model : torch.nn.Module
            The autoencoder.
        number_of_epochs : int
            Of the whole training.

        Raises
        ------
        ValueError
            A part that has no parameter.
        """
        names = [name for name, _ in model.named_parameters()]
        for prefix in (prefix for stage in self.stages for prefix in _prefixes(stage)):
            if not any(_within(name, [prefix]) for name in names):
                parts = sorted({".".join(name.split(".")[:2]) for name in names})
                raise ValueError(
                    f"training_stages names {prefix!r}, which no parameter's name "
                    f"starts with; there are {', '.join(parts)}"
                )
        last = self.epochs - self.stages[-1]["epochs"]
        if number_of_epochs <= last:
            logger.warning(
                "number_of_epochs is %d, but the last of the training_stages begins "
                "with epoch %d: it will not be reached.",
                *(number_of_epochs, last + 1),
            )

    def apply(self, model, epoch: int):
        """Let the parts of this epoch's stage learn, and no others.

        Arguments
        ---------
        model : torch.nn.Module
            The autoencoder.
        epoch : int
            Counted from 1.
        """
        prefixes = self.prefixes(epoch)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_within(name, prefixes))


def _prefixes(stage):
    return [""] if stage["train"] == "all" else list(stage["train"])


def _within(name, prefixes):
    # Whole parts of a name: blocks.1 is not blocks.10.
    return any(
        not prefix or f"{name}.".startswith(prefix.rstrip(".") + ".")
        for prefix in prefixes
    )
