"""Query by example: are the utterances that contain a spoken word found?"""

from collections import defaultdict

import numpy as np
import torch
from matplotlib.figure import Figure

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.lobes.front_ends import FrontEnd

from .context import NotApplicable
from .report import Section, Table
from .word_search import WordSearch, sounds_like, spoken_words

OPPONENTS = {"MFCC": "mfcc_cmvn", "FBANK": "fbank_cmvn"}
"""What a representation is held against."""

QUERIES = 5
"""Of one word at most, in a report."""

EXAMPLES = 3


def section(context) -> Section:
    """How well spoken words are found among the utterances of an analysis.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        With ``word_times`` and ``spk_id`` in its entries.

    Returns
    -------
    Section

    Raises
    ------
    NotApplicable
        No word is said often enough, and by more than one speaker.
    """
    entries = context.entries
    try:
        words = spoken_words(entries, most=QUERIES)
        searches = searches_of(context)
        numbers = {
            name: retrieval_scores(search, words, entries)
            for name, search in searches.items()
        }
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    rows = [[name, scores["MAP"], scores["P@N"]] for name, scores in numbers.items()]
    chance = next(iter(numbers.values()))
    rows.append(["order by chance", chance["chance"], chance["chance_P@N"]])
    best = max(_ours(numbers), key=lambda name: numbers[name]["MAP"])
    features = {utt: context[utt].features for utt in entries}
    text = _TEXT.format(
        name=context.name,
        queries=numbers[best]["queries"],
        words=len(numbers[best]["words"]),
        over="each speaker" if _all_speak(context) else "all utterances",
    )
    return Section(
        "Word retrieval",
        text,
        [
            (
                "retrieval",
                draw(numbers, words),
                "Average precision of each word, means over its queries, against the "
                "length of the word.",
            )
        ],
        [
            Table(
                "Utterances of other speakers that have the word, in percent",
                ("representation", "mean average precision", "precision at N"),
                rows,
            ),
            examples(searches[best], words, numbers[best]["words"], entries, best),
            neighbours(features, entries),
        ],
        numbers,
    )


_TEXT = """
Of {name} alone. {queries} queries: {words} words that are said at least five times,
each cut out of an utterance where the alignment has it. The utterances of all other
speakers are ranked by subsequence DTW of the frames, those of every representation
decorrelated over {over}. **Mean average precision** is 100 where all utterances with
the word come first; **precision at N** looks at the first N, where N have it.

**What this does not show**: frames of an encoder that hears around them know what was
said before and after the word that was cut out, frames of MFCC and FBANK hardly do. A
word that sounds like another (“two”, “to”) counts as an error, and so does the same
word inside a longer one. Short function words are most of the list and have little
sound to be found by.
"""


@torch.no_grad()
def searches_of(context):
    """A :class:`.word_search.WordSearch` of every representation, by name.

    The features of the model, the last layer of its encoder, and what they are held
    against.
    """
    features, states, spectral = {}, {}, {name: {} for name in OPPONENTS}
    front_ends = {
        name: FrontEnd(kind, sample_rate=context.sample_rate)
        for name, kind in OPPONENTS.items()
    }
    encoder = context.autoencoder.encoder
    for utt, entry in context.entries.items():
        encoded = context[utt]
        features[utt] = encoded.features
        states[utt] = encoder.layers(encoded.log_mel.unsqueeze(0))[-1][0]
        wav = load_entry(entry)
        for name, front_end in front_ends.items():
            spectral[name][utt] = front_end.raw(wav.unsqueeze(0))[0][0]
    options = {
        "normalisation": "speaker" if _all_speak(context) else "whitened",
        "speakers": context.speakers,
    }
    place = context.frame_shift, context.first_frame
    found = {
        f"{context.name}, features": WordSearch(features, *place, **options),
        f"{context.name}, encoder": WordSearch(states, *place, **options),
    }
    for name, front_end in front_ends.items():
        found[name] = WordSearch(spectral[name], front_end.frame_shift, **options)
    return found


def _ours(names):
    return [name for name in names if name not in OPPONENTS]


def _all_speak(context):
    """Whether it is known of every utterance who says it."""
    return len(context.speakers) == len(context.entries)


def draw(numbers, words):
    """Average precision of each word against how long it is, best and MFCC."""
    length = defaultdict(list)
    for word in words:
        length[word.word].append(1000 * (word.end - word.start))
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    ours = max(_ours(numbers), key=lambda name: numbers[name]["MAP"])
    shown = ((ours, "o", "0.15"), ("MFCC", "x", "0.55"))
    for name, marker, grey in shown:
        scores = numbers[name]["words"]
        x = [np.mean(length[word]) for word in scores]
        label = f"{name} (mean {numbers[name]['MAP']:.1f} %)"
        axes.scatter(x, list(scores.values()), 22, grey, marker, label=label)
    top = sorted(numbers[ours]["words"].items(), key=lambda pair: -pair[1])[:8]
    labels = [
        axes.annotate(
            word.lower(),
            (np.mean(length[word]), score),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=7,
        )
        for word, score in top
    ]
    axes.set(
        xlabel="Mean length of the word (ms)",
        ylabel="Average precision (%)",
        ylim=(0, 103),
    )
    axes.legend(frameon=False)
    figure.draw_without_rendering()
    _keep_apart(labels)
    return figure


def _keep_apart(labels):
    """Remove every label that lies on an earlier one."""
    kept = []
    for label in labels:
        box = label.get_window_extent()
        if any(box.overlaps(other) for other in kept):
            label.remove()
        else:
            kept.append(box)


def examples(search, words, scores, entries, name):
    """The first hits of a query of the words that are found best."""
    rows = []
    speakers = {utt: entry.get("spk_id", utt) for utt, entry in entries.items()}
    for word in sorted(scores, key=lambda word: -scores[word])[:EXAMPLES]:
        query = next(query for query in words if query.word == word)
        own = {utt for utt in entries if speakers[utt] == speakers[query.utt]}
        for hit in search.find(query.utt, query.start, query.end, 3, without=own):
            said = {w for *_, w in entries[hit.utt].get("word_times") or ()}
            rows.append(
                [
                    word.lower(),
                    query.utt,
                    hit.utt,
                    f"{hit.start:.2f} to {hit.end:.2f}",
                    hit.distance,
                    "yes" if word in said else "no",
                ]
            )
    columns = ("word", "query", "hit", "time (s)", "distance", "has the word")
    title = f"First hits among other speakers, {name}: the words it finds best"
    return Table(title, columns, rows)


def neighbours(features, entries):
    """What the utterance that sounds most like another one shares with it."""
    utterances, similarity = sounds_like(features)
    similarity.fill_diagonal_(-1)
    nearest = similarity.argmax(1).tolist()
    rows = []
    for key, label in (("spk_id", "speaker"), ("gender", "gender")):
        known = [entries[utt].get(key) for utt in utterances]
        if None in known:
            continue
        alike = np.mean([known[i] == known[j] for i, j in enumerate(nearest)])
        share = np.array([known.count(value) - 1 for value in known])
        chance = np.mean(share / max(len(known) - 1, 1))
        rows.append([f"has the same {label}", 100 * alike, 100 * chance])
    return Table(
        "“Sounds like”: the utterance whose pooled features are most alike, in percent",
        ("the most similar utterance", "share", "by chance"),
        rows,
    )


def retrieval_scores(
    search: WordSearch, words, entries: dict[str, dict], same_speaker: bool = False
) -> dict:
    """How well words are found, over all queries.

    Arguments
    ---------
    search : WordSearch
        With the utterances of ``entries``.
    words : list of SpokenWord
        The queries.
    entries : dict of str to dict
        With ``words`` or ``word_times`` and, for ``same_speaker=False``, ``spk_id``.
    same_speaker : bool
        Whether utterances of the query's own speaker are ranked too. The utterance
        that the query is cut from never is.

    Returns
    -------
    dict
        ``MAP``, mean average precision, and ``P@N``, precision of the first N where N
        utterances have the word, both in percent, means over the queries of a word and
        then over words; ``chance`` and ``chance_P@N``, those of an order by chance;
        ``words``: the average precision of each word, in percent; ``queries``: how many
        there were. A query whose word nobody else says counts nowhere.

    Example
    -------
    >>> frames = torch.eye(3)
    >>> features = {"a": frames, "b": frames[[2, 0, 1]], "c": frames[[2, 2, 2]]}
    >>> entries = {
    ...     utt: {"spk_id": utt, "word_times": [[0.0, 0.1, word]]}
    ...     for utt, word in (("a", "SO"), ("b", "SO"), ("c", "NO"))
    ... }
    >>> words = spoken_words(entries, least=2)
    >>> scores = retrieval_scores(WordSearch(features, 0.1), words, entries)
    >>> scores["MAP"], scores["P@N"], scores["queries"]
    (100.0, 100.0, 2)
    """
    spoken = {
        utt: {word for *_, word in entries[utt].get("word_times") or ()}
        | set((entries[utt].get("words") or "").split())
        for utt in search.utterances
    }
    speakers = np.array([entries[utt].get("spk_id", utt) for utt in search.utterances])
    names = np.array(search.utterances)
    found = defaultdict(list)
    for query in words:
        own = names == query.utt
        if not same_speaker:
            own = own | (speakers == entries[query.utt].get("spk_id", query.utt))
        has = np.array([query.word in spoken[utt] for utt in search.utterances])[~own]
        if not has.any():
            continue
        distances = search.distances(query.utt, query.start, query.end).numpy()[~own]
        ranked = has[np.argsort(distances, kind="stable")]
        found[query.word].append(
            (
                average_precision(ranked),
                ranked[: has.sum()].mean(),
                _by_chance(ranked),
                has.mean(),
            )
        )
    if not found:
        raise ValueError("no word of the queries is said by anybody else")
    means = {word: 100 * np.mean(rows, axis=0) for word, rows in found.items()}
    average, precision, *chance = np.mean(list(means.values()), axis=0)
    return {
        "MAP": float(average),
        "P@N": float(precision),
        "chance": float(chance[0]),
        "chance_P@N": float(chance[1]),
        "words": {word: float(row[0]) for word, row in sorted(means.items())},
        "queries": sum(map(len, found.values())),
    }


def average_precision(ranked) -> float:
    """Mean of the precision at the rank of each utterance that has the word.

    Arguments
    ---------
    ranked : array of bool
        Whether each utterance has the word, the first one first.

    Returns
    -------
    float

    Example
    -------
    >>> round(average_precision([True, False, True]), 4)
    0.8333
    """
    ranked = np.asarray(ranked, dtype=bool)
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def _by_chance(ranked):
    """The average precision of an order by chance, in the mean."""
    n, has = len(ranked), int(np.sum(ranked))
    if n == 1:
        return float(has)
    ranks = np.arange(1, n + 1)
    # One of those that have the word is at the rank; of the others, each of the ranks
    # before is as likely as any.
    return float(((1 + (ranks - 1) * (has - 1) / (n - 1)) / ranks).mean())
