"""Publishing and fetching, by huggingface_hub's own client, from a server here."""

import json
import os
import subprocess
import sys

import pytest
import torch

from conftest import tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.lobes.frozen import FrozenEncoder
from tests.hub_server import TOKEN, HubServer

# The client reads HF_ENDPOINT when it is imported, so it has a process of its own.
CLIENT = """
import json, os, sys
import huggingface_hub, torch
from speechbrain_vae.hub import main, pull, push
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.frozen import FrozenEncoder
# The client resumes after whole chunks; of its own size a small file has none.
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 4096
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    task = json.loads(line)
    os.environ["HF_TOKEN"] = task["token"]
    try:
        answer = {"value": eval(task["code"])}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=out, flush=True)
"""
FEATURES = "FrozenEncoder({source!r}, {saved!r})(torch.ones(1, 8000)).tolist()"
ENCODED = (
    "FeatureEncoder.from_hparams({source!r}, {saved!r})"
    ".encode_batch(torch.ones(1, 8000)).tolist()"
)
CARD = (
    '---\ntags: [a]\n---\nFeatureEncoder.from_hparams("path/to/this/folder")\n'
    "source: ann/another"
)


@pytest.fixture(scope="module")
def hub():
    """A server with nothing on it."""
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """Evaluates an expression where the client talks to the server."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def evaluate(code, token=TOKEN, **values):
            code = code.format(**values)
            process.stdin.write(json.dumps({"code": code, "token": token}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield evaluate
        process.stdin.close()


@pytest.fixture
def published(run, hub, tiny_export, request):
    """A repository of its own for each test."""
    (tiny_export / "README.md").write_text(CARD)
    repo = f"ann/{request.node.name[:40].replace('[', '-').strip('-]')}"
    done = run("push({export!r}, {repo!r}, 'mit')", export=str(tiny_export), repo=repo)
    assert done == {"value": f"{hub.url}/{repo}"}
    return repo


def test_a_pushed_export_holds_weights_card_and_licence(hub, published):
    files = hub.repos[published]
    assert set(files) == {
        "hyperparams.yaml",
        "features.safetensors",
        "autoencoder.safetensors",
        "README.md",
        "LICENSE",
    }
    card = files["README.md"].decode()
    assert "license: mit" in card and published in card
    assert b"SPDX-License-Identifier: MIT" in files["LICENSE"]


def test_a_repository_id_loads_like_the_folder(run, published, tiny_export, tmp_path):
    expected = FrozenEncoder(tiny_export)(torch.ones(1, 8000))
    for saved in (None, str(tmp_path / "saved")):
        found = run(FEATURES, source=published, saved=saved)["value"]
        torch.testing.assert_close(torch.tensor(found), expected)
    code = "FeatureEncoder.from_hparams({source!r}).feature_size"
    assert run(code, source=published) == {"value": 8}


@pytest.mark.parametrize("load", [FEATURES, ENCODED], ids=["frozen", "encoder"])
def test_two_repositories_may_share_a_savedir(
    run, published, tiny_export, tmp_path, load
):
    hparams, text = tiny_model()
    torch.nn.init.ones_(hparams["autoencoder"].encoder.stem.weight)
    parts = hparams["features"], hparams["autoencoder"]
    other = write_export(tmp_path / "other", text, *parts, card=CARD)
    second = f"{published}-other"
    run("push({export!r}, {repo!r}, 'mit')", export=str(other), repo=second)
    for folder, repo in [(tiny_export, published), (other, second)] * 2:
        found = run(load, source=repo, saved=str(tmp_path / "saved"))["value"]
        expected = FrozenEncoder(folder)(torch.ones(1, 8000))
        torch.testing.assert_close(torch.tensor(found), expected)


def test_a_second_push_updates_the_model(run, hub, published, tiny_export):
    card = tiny_export / "README.md"
    card.write_text(card.read_text() + "\nnews")
    code = "push({export!r}, {repo!r}, 'mit', {private!r})"
    done = run(code, export=str(tiny_export), repo=published, private=False)
    assert done == {"value": f"{hub.url}/{published}"}
    assert hub.repos[published]["README.md"].endswith(b"news")


def test_a_private_push_to_a_public_repository_uploads_nothing(
    run, hub, published, tiny_export
):
    before = dict(hub.repos[published])
    (tiny_export / "README.md").write_text(CARD + "\nsecret")
    code = "push({export!r}, {repo!r}, 'mit', private=True)"
    answer = run(code, export=str(tiny_export), repo=published)
    assert "exists and is public, nothing was uploaded" in answer["error"]
    assert hub.repos[published] == before
    hub.private.add(published)
    assert "value" in run(code, export=str(tiny_export), repo=published)
    assert b"secret" in hub.repos[published]["README.md"]


def test_a_pulled_model_is_pushed_under_its_new_name_and_its_licence(
    run, hub, published, tmp_path
):
    pulled, second = str(tmp_path / "pulled"), f"{published}-2"
    run("str(pull({repo!r}, {to!r}))", repo=published, to=pulled)
    code = "push({export!r}, {repo!r}, {licence!r})"
    answer = run(code, export=pulled, repo=second, licence="cc-by-4.0")
    assert "LICENSE says mit, and you gave cc-by-4.0" in answer["error"], answer
    assert "--license mit" in answer["error"] and second not in hub.repos
    assert "value" in run(code, export=pulled, repo=second, licence="mit")
    files = hub.repos[second]
    card = files["README.md"].decode()
    assert f'from_hparams("{second}")' in card and "license: mit" in card
    assert "ann/another" in card
    assert files["LICENSE"] == hub.repos[published]["LICENSE"]


def test_a_pulled_export_loads_like_the_folder(run, published, tiny_export, tmp_path):
    run("str(pull({repo!r}, {to!r}))", repo=published, to=str(tmp_path / "pulled"))
    wavs = torch.ones(1, 8000)
    found = FrozenEncoder(tmp_path / "pulled")(wavs)
    torch.testing.assert_close(found, FrozenEncoder(tiny_export)(wavs))


def test_a_cut_download_goes_on_where_it_was(run, hub, published, tmp_path):
    hub.cut.add("autoencoder.safetensors")
    size = len(hub.repos[published]["autoencoder.safetensors"])
    hub.ranges.clear()
    run("str(pull({repo!r}, {to!r}))", repo=published, to=str(tmp_path / "pulled"))
    ((name, start),) = hub.ranges
    assert name == "autoencoder.safetensors" and 0 < start <= size // 2
    FrozenEncoder(tmp_path / "pulled")


def test_a_file_changed_on_its_way_is_refused(run, hub, published, tmp_path):
    content = bytearray(hub.repos[published]["autoencoder.safetensors"])
    content[-3] ^= 1
    hub.tamper["autoencoder.safetensors"] = bytes(content)
    answers = [
        run("str(pull({repo!r}, {to!r}))", repo=published, to=str(tmp_path / "a")),
        run(FEATURES, source=published, saved=str(tmp_path / "b")),
    ]
    hub.tamper.clear()
    for answer in answers:
        assert "ExportError" in answer["error"] and "SHA-256" in answer["error"]


def test_code_in_a_published_yaml_does_not_run(run, hub, published, tmp_path):
    marker = tmp_path / "executed"
    hub.repos[published]["hyperparams.yaml"] += (
        f"extra: !apply:os.mkdir [{marker}]\n".encode()
    )
    answer = run(FEATURES, source=published, saved=None)
    assert "!apply:os.mkdir" in answer["error"] and not marker.exists()


def test_a_private_repository_is_for_those_with_a_token(
    run, hub, tiny_export, tmp_path
):
    (tiny_export / "README.md").write_text("---\ntags: [a]\n---\n")
    arguments = f"[{'push'!r}, {str(tiny_export)!r}, 'ann/secret', "
    run(f"main({arguments}'--private', '--license', 'cc-by-4.0'])")
    assert "ann/secret" in hub.private
    for code in (FEATURES, "str(pull({source!r}, {saved!r}))"):
        saved = str(tmp_path / "b")
        answer = run(code, token="hf_wrong", source="ann/secret", saved=saved)
        assert "ann/secret" in answer["error"], answer
    assert "value" in run(FEATURES, source="ann/secret", saved=str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("main(['pull', 'ann/nothing', '{folder}'])", "no such model, or it is priva"),
        ("main(['pull', 'a b/c', '{folder}'])", "must be like user/name; got 'a b/c'"),
        ("main(['pull', 'vae', '{folder}'])", "must be like user/name; got 'vae'"),
        ("push('{folder}', 'vae', 'mit')", "must be like user/name; got 'vae'"),
        ("main(['push', '{folder}', 'ann/x', '--license', 'mit'])", "not an export"),
        ("FrozenEncoder('ann/nothing')", "fetching hyperparams.yaml of it"),
    ],
)
def test_what_goes_wrong_ends_in_one_line(run, code, words, tmp_path):
    answer = run(code, folder=tmp_path)
    assert words in answer["error"] and "\n" not in answer["error"], answer


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "test.png"])
def test_what_a_link_leads_to_is_not_published(run, hub, name, tiny_export, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    (tiny_export / "README.md").write_text(CARD)
    (tiny_export / name).unlink(missing_ok=True)
    (tiny_export / name).symlink_to(secret)
    done = run("push({export!r}, 'ann/links', 'mit')", export=str(tiny_export))
    assert f"{name} is a link to" in done["error"] and "ann/links" not in hub.repos


def test_a_licence_in_the_export_need_not_be_given(run, hub, tiny_export):
    (tiny_export / "README.md").write_text(CARD)
    push = "push({export!r}, 'ann/licensed')"
    done = run(push, export=str(tiny_export))
    assert "give the licence of the weights" in done["error"]
    (tiny_export / "LICENSE").write_text("SPDX-License-Identifier: CC-BY-4.0\n")
    assert "value" in run(push, export=str(tiny_export))
    assert b"license: cc-by-4.0" in hub.repos["ann/licensed"]["README.md"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", None, "has no model card README.md"),
        ("README.md", b"\xff", "README.md is not text in UTF-8"),
        ("README.md", b"---\na: [\n---\n", "README.md: what stands between"),
        ("LICENSE", b"\xff", "LICENSE is not text in UTF-8"),
    ],
)
def test_a_card_that_cannot_be_read_is_named(run, name, content, message, tiny_export):
    (tiny_export / "README.md").write_text(CARD)
    if content is None:
        (tiny_export / name).unlink()
    else:
        (tiny_export / name).write_bytes(content)
    done = run("push({export!r}, 'ann/damaged', 'mit')", export=str(tiny_export))
    assert message in done["error"] and "\n" not in done["error"]


def test_without_a_token_nothing_is_pushed(run, hub, tiny_export):
    (tiny_export / "README.md").write_text("---\ntags: [a]\n---\n")
    code = "push({export!r}, 'ann/stranger', 'mit')"
    answer = run(code, token="hf_wrong", export=str(tiny_export))
    assert "hf auth login" in answer["error"] and "ann/stranger" not in hub.repos
