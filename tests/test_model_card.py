"""Model cards, on this machine and on the Hub."""

import pytest

from speechbrain_vae.model_card import model_card, published_card, run_settings

REPORT = {
    "corpus": "timit",
    "train.hours": 3.1,
    "latent_dim": 64,
    "frame_shift": 0.02,
    "test.mse": 0.25,
    "skipped": ["/home/me/a.wav: silent"],
    "export": "/x",
}


def test_a_model_card_does_not_tell_the_paths_of_the_machine():
    command = "python train.py hparams/vae.yaml --data_folder '/home/me/my timit'"
    card = model_card(REPORT, command)
    assert "0.25" in card and "/home/me" not in card and "`export`" not in card
    assert "hparams/vae.yaml --data_folder 'my timit'" in card


@pytest.mark.parametrize(
    ("private", "kept"),
    [
        ("--data_folder=/home/ann.smith/patients", "--data_folder=patients"),
        ("--data_folder='/home/ann.smith/o, brien'", "'--data_folder=o, brien'"),
        ("--data_folder ../../ann.smith/x", "--data_folder x"),
        ("--data_folder data/ann.smith/x/", "--data_folder x"),
        ("--data_folder ~/ann.smith/x", "--data_folder x"),
        ("--data_folder '~ann.smith/x y'", "--data_folder 'x y'"),
        ("--data_folder 'C:\\Users\\ann.smith\\x'", "--data_folder x"),
        ("--data_folder file:///home/ann.smith/x", "--data_folder x"),
        ("'--o={a: /home/ann.smith/x, b: [~/ann.smith/y, 1]}'", "'--o={a: x, b: [y,"),
        ('\'{"a":"/home/ann.smith/x"}\'', '\'{"a":"x"}\''),
    ],
)
def test_of_a_path_the_last_part_is_kept(private, kept):
    command = f"python train.py /home/ann.smith/hparams/vae.yaml {private} --lr .5"
    card = model_card({"place": "/home/ann.smith/x"}, command)
    assert "ann.smith" not in card and "--lr .5" in card
    assert f"python train.py vae.yaml {kept}" in card, card
    # A card of an older version.
    old = model_card({}, "COMMAND").replace("COMMAND", command)
    assert "ann.smith" not in published_card(old, "ann/vae", "mit")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py hparams/vae.yaml --latent_size 8",
        "python train.py recipes/ASR/hparams/train.yaml  # don't stop",
    ],
)
def test_a_command_without_private_paths_stays_as_it_is(command):
    assert f"\n{command}\n" in published_card(model_card({}, command), "a/b", "mit")


def test_a_card_says_corpus_hours_settings_numbers_figure_and_use():
    settings = run_settings("seed: 7\nsave_folder: /home/me\nlr: 0.1")
    card = model_card(REPORT, "python train.py vae.yaml", settings, "test.png")
    for words in ("timit", "3.1", "`seed` | 7", "`lr`", "0.25", "(test.png)"):
        assert words in card
    assert "[T, 64], every 20 ms" in card and "/home/me" not in card


def test_a_published_card_keeps_what_its_owner_wrote():
    card = model_card(REPORT, "train") + "\n## Mine\n"
    published = published_card(card, "ann/vae", "mit")
    assert "license: mit" in published and "## Mine" in published
    assert "source: ann/vae" in published and "path/to" not in published


def test_a_card_of_another_repository_names_the_new_one():
    card = published_card(model_card(REPORT, "train"), "ann/vae", "mit")
    card += '\n## See also\nann/vae, or FeatureEncoder.from_hparams("bob/vq")\n'
    moved = published_card(card, "carl/copy", "mit")
    assert 'from_hparams("carl/copy")' in moved and "source: carl/copy" in moved
    assert 'ann/vae, or FeatureEncoder.from_hparams("bob/vq")' in moved


@pytest.mark.parametrize("line", ["1: 2", "null: 3", "[a]: b", "- a", "a: ["])
def test_metadata_that_is_none_is_named(line):
    with pytest.raises(ValueError, match="README.md: what stands between .* mend it"):
        published_card(f"---\n{line}\n---\n# x\n", "ann/vae", "mit")
