"""Model cards, on this machine and on the Hub."""

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
