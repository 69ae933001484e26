"""Transcripts as sequences of SentencePiece units, for recognition with CTC."""

import io
from pathlib import Path

import sentencepiece
from speechbrain.utils.distributed import run_on_main

from speechbrain_vae.dataio.manifests import stable_hash

UNIT_TYPES = ("char", "unigram", "bpe")

BLANK = 0
"""Index of CTC's blank, which SentencePiece gives to what it does not know."""


def train_units(
    texts, folder: str | Path, unit_type: str = "unigram", vocab_size: int = 100
):
    """SentencePiece units of a training set, kept in a folder.

    Kudo and Richardson, "SentencePiece: a simple and language independent subword
    tokenizer", EMNLP 2018. Index 0 is left to CTC's blank; the text is taken as it is,
    so decoding what was encoded gives it back, with single spaces.

    Arguments
    ---------
    texts : iterable of str
        Transcripts of the training set.
    folder : str or Path
        Where the model is kept; it is trained once for the same texts and options.
    unit_type : str
        "char", "unigram" or "bpe".
    vocab_size : int
        Number of units, with the blank. Characters are as many as there are.

    Returns
    -------
    sentencepiece.SentencePieceProcessor

    Raises
    ------
    ValueError
        An unknown type, or more units than the texts have.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> units = train_units(["GO ON", "NO GO"], folder, "char")
    >>> units.decode(units.encode("ON GO"))
    'ON GO'
    >>> units.encode("GO IN")  # no I in training
    [2, 3, 1, 2, 0, 4]
    """
    if unit_type not in UNIT_TYPES:
        raise ValueError(
            f"unit_type is one of {', '.join(UNIT_TYPES)}; got {unit_type!r}"
        )
    texts = sorted(" ".join(text.split()) for text in texts)
    name = stable_hash("\n".join(texts), vocab_size)[:12]
    path = Path(folder) / f"{unit_type}-{name}.model"
    run_on_main(_train, args=[texts, path, unit_type, vocab_size])
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _train(texts, path, unit_type, vocab_size):
    if path.is_file():
        return
    options = {} if unit_type == "char" else {"vocab_size": vocab_size}
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=unit_type,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=2**20,
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        # What comes before the bracket is a place in SentencePiece's source.
        raise ValueError(
            f"{vocab_size} {unit_type} units cannot be made of the training "
            f"transcripts: {str(error).rpartition('] ')[2]}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(model.getvalue())
    temporary.replace(path)
