"""The alignment recipe."""

import gzip

import pytest

from benchmarks.loading import RECIPES, load_recipe
from speechbrain_vae.analysis.alignments import read_alignment
from speechbrain_vae.analysis.forced_alignment import differences

from .processes import in_two_processes
from .tone_corpus import PHONES, SENTENCES, results, tone_corpus

recipe = load_recipe("Align")

SMALL = {
    "hidden_size": 24,
    "dropout": 0,
    "lr": 0.01,
    "number_of_epochs": 6,
    "batch_seconds": 2,
    "frame_epochs": 2,
    "rounds": 1,
}


def command(tmp_path, **options):
    """Arguments that align the tones."""
    return [
        str(RECIPES / "Align" / "hparams" / "align.yaml"),
        *("--data_folder", str(tmp_path / "corpus"), "--noprogressbar"),
        *("--output_folder", str(tmp_path / "run")),
        *("--feature_cache", str(tmp_path / "cache"), "--device", "cpu"),
        *(text for k, v in (SMALL | options).items() for text in (f"--{k}", str(v))),
    ]


def true_times(text):
    """Every letter lasts as long, a space is silence."""
    return [
        [0.12 * place, 0.12 * (place + 1), PHONES[letter].rstrip("1")]
        for place, letter in enumerate(text)
        if letter != " "
    ]


def test_tones_are_aligned_where_they_are(tmp_path):
    tone_corpus(tmp_path / "corpus", times=12)
    recipe.main(command(tmp_path))
    times = read_alignment(tmp_path / "run" / "alignment.tsv.gz")
    test = {f"0003{i:05d}": true_times(text) for i, text in enumerate(SENTENCES)}
    found = differences({utt: times[utt] for utt in test}, test)
    assert found["utterances"] == 2
    assert found["median_ms"] <= 15 and found["within_50ms"] > 90
    assert results(tmp_path / "run") == {"utterances": 28, "left_out": 0}
    with gzip.open(tmp_path / "run" / "alignment.tsv.gz", "rt") as file:
        assert file.readline().split() == [
            "utt",
            "start_s",
            "end_s",
            "phone",
            "speaker",
        ]


def test_a_lexicon_takes_the_place_of_phones(tmp_path):
    corpus = tone_corpus(tmp_path / "corpus", times=2)
    (corpus / "resource" / "text-phone").unlink()
    words = {word for text in SENTENCES for word in text.split()}
    lines = [f"{word} {' '.join(PHONES[a] for a in word)}" for word in sorted(words)]
    (tmp_path / "lexicon.txt").write_text("\n".join(lines) + "\n")
    short = {"number_of_epochs": 1, "frame_epochs": 1, "rounds": 1}
    recipe.main(command(tmp_path, lexicon=tmp_path / "lexicon.txt", **short))
    times = read_alignment(tmp_path / "run" / "alignment.tsv.gz")
    assert [p for *_, p in times["000300000"]] == ["B", "AA", "D", "D", "AA", "D"]
    swapped = {"B": "D", "D": "B"}
    lines = [" ".join(swapped.get(part, part) for part in x.split()) for x in lines]
    (tmp_path / "lexicon.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit, match="is of other phones .* lexicon was changed"):
        recipe.main(command(tmp_path, lexicon=tmp_path / "lexicon.txt", **short))


def test_a_corpus_without_phones_ends_in_one_line(tmp_path):
    corpus = tone_corpus(tmp_path / "corpus")
    (corpus / "resource" / "text-phone").unlink()
    with pytest.raises(SystemExit, match="train set has phones; .*--lexicon FILE"):
        recipe.main(command(tmp_path))


def test_a_lexicon_without_the_words_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus")
    (tmp_path / "lexicon.txt").write_text("ELSEWHERE EH L S W EH R\n")
    with pytest.raises(SystemExit, match="all in the lexicon; .*--lexicon FILE"):
        recipe.main(command(tmp_path, lexicon=tmp_path / "lexicon.txt"))


def test_two_processes_align(tmp_path):
    tone_corpus(tmp_path / "corpus", times=12)
    in_two_processes("Align", command(tmp_path, batch_seconds=1))
    times = read_alignment(tmp_path / "run" / "alignment.tsv.gz")
    test = {f"0003{i:05d}": true_times(text) for i, text in enumerate(SENTENCES)}
    assert differences({utt: times[utt] for utt in test}, test)["median_ms"] <= 15
    assert results(tmp_path / "run") == {"utterances": 28, "left_out": 0}
