from __future__ import annotations

import dataclasses
import hashlib
import io
import os

import httpx
import pytest

from negbench.errors import ConfigError, DataError, MissingError, StorageError, UnknownNameError
from negbench.metrics import weights

BODY = os.urandom(5000)
FILE = weights.WeightFile(
    name="thing",
    url="https://known.example/a/thing%2Bv1.pth",
    sha256=hashlib.sha256(BODY).hexdigest(),
    size=len(BODY),
    licence="MIT",
    serves="tests",
    hosts=("store.known.example",),
)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(weights.FILES, "thing", FILE)
    return tmp_path


def client(handler) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(handler))


def left() -> list[str]:
    folder = weights.weights_dir()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_download_is_checked_and_appears_whole():
    def server(request):
        if request.url.host == "known.example":
            return httpx.Response(302, headers={"location": "https://store.known.example/x?y=1"})
        return httpx.Response(200, content=BODY)

    seen = []
    path = weights.download(FILE, client=client(server), progress=lambda *a: seen.append(a))
    assert path.read_bytes() == BODY
    assert left() == ["thing+v1.pth"]
    assert seen[-1] == ("thing", len(BODY), len(BODY))
    assert weights.find("thing") == path


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://evil.example/x", "not a known host"),
        ("http://store.known.example/x", "not a known host"),
        ("https://known.example.evil.example/x", "not a known host"),
        ("/again", "more than 5 redirects"),
    ],
)
def test_redirects_lead_to_known_hosts_only(location, said):
    asked = []

    def server(request):
        asked.append(request.url.host)
        return httpx.Response(302, headers={"location": location})

    with pytest.raises(DataError, match=said):
        weights.download(FILE, client=client(server))
    assert set(asked) == {"known.example"}
    assert left() == []


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY[:-1] + b"x", BODY + b"more"])
def test_what_is_not_the_pinned_file_is_not_kept(body):
    with pytest.raises(DataError, match=r"not the pinned file|broken off"):
        weights.download(FILE, client=client(lambda _: httpx.Response(200, content=body)))
    assert left() == []


def test_offline_is_one_clear_line():
    def server(request):
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    with pytest.raises(MissingError) as caught:
        weights.download(FILE, client=client(server))
    line = str(caught.value)
    assert "known.example" in line
    assert "negbench prefetch thing" in line
    assert "\n" not in line
    with pytest.raises(MissingError, match="answers 404"):
        weights.download(FILE, client=client(lambda _: httpx.Response(404)))


def test_a_full_disk_leaves_nothing(monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        weights.download(FILE, client=client(lambda _: httpx.Response(200, content=BODY)))
    assert left() == []


def test_find_takes_torch_hubs_copy_only_if_it_is_the_pinned_one(places):
    with pytest.raises(MissingError, match="negbench prefetch thing"):
        weights.find("thing")
    hub = places / "torch" / "hub" / "checkpoints" / "thing+v1.pth"
    hub.parent.mkdir(parents=True)
    hub.write_bytes(BODY)
    assert weights.find("thing") == hub
    hub.write_bytes(b"other")
    with pytest.raises(MissingError):
        weights.find("thing")
    ours = weights.weights_dir() / "thing+v1.pth"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="not the pinned file"):
        weights.find("thing")


def test_prefetch_names_are_checked_before_anything_is_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr(weights, "download", lambda file, **_: fetched.append(file) or file.name)
    with pytest.raises(UnknownNameError, match="did you mean inception-v3"):
        list(weights.prefetch(["thing", "inception-v4"]))
    assert fetched == []
    assert list(weights.prefetch(["thing", "thing"])) == [("thing", "thing")]
    assert weights.expand(["aesthetic", "laion-v2"]) == ["clip:ViT-L-14/openai", "laion-v2"]


def test_a_pickle_that_does_more_than_hold_tensors_is_not_run(places, monkeypatch):
    import pickle

    import torch

    mark = places / "ran"

    class Bad:
        def __reduce__(self):
            return (os.mkdir, (str(mark),))

    for body in (pickle.dumps(Bad()), _saved(torch, {"a": Bad()}), _saved(torch, [1, 2])):
        path = weights.weights_dir() / "thing+v1.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        pinned = dataclasses.replace(FILE, sha256=hashlib.sha256(body).hexdigest())
        monkeypatch.setitem(weights.FILES, "thing", pinned)
        with pytest.raises(Exception, match=r"[Ww]eights|state dict"):
            weights.load_pickle("thing")
        assert not mark.exists()


def _saved(torch, value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_pinned_tensors_are_read(monkeypatch):
    import torch

    body = _saved(torch, {"w": torch.ones(2)})
    weights.weights_dir().mkdir(parents=True)
    (weights.weights_dir() / "thing+v1.pth").write_bytes(body)
    pinned = dataclasses.replace(FILE, sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setitem(weights.FILES, "thing", pinned)
    assert torch.equal(weights.load_pickle("thing")["w"], torch.ones(2))


def test_every_pinned_file_has_a_digest_and_an_https_address():
    for name, file in weights.FILES.items():
        assert file.name == name
        assert file.url.startswith("https://")
        assert len(file.sha256) == 64
        assert "%" not in file.filename
        if "-" in file.filename and file.filename.rsplit("-", 1)[-1].endswith(".pth"):
            short = file.filename.rsplit("-", 1)[-1].removesuffix(".pth")
            if len(short) == 8 and name != "thing":  # torch hub's convention
                assert file.sha256.startswith(short)
