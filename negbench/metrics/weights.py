"""Where the weights of metrics lie, what they must be, and how they get there.

A file is known by its pinned sha256; one with another digest is never loaded. Files that exist only
as pickles are read with ``weights_only=True`` from the very bytes whose digest was checked. Nothing
is downloaded while planning or scoring: `prefetch` does that, on a machine with internet.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from negbench.errors import (
    ConfigError,
    DataError,
    MissingError,
    UnknownNameError,
    did_you_mean,
    one_line,
)
from negbench.files import make_folder, storage_error
from negbench.remote import user_cache
from negbench.weight_files import file_digest

if TYPE_CHECKING:
    import httpx
    import torch

Progress = Callable[[str, int, int | None], None]
"""Called with a name, the bytes so far and the bytes in all (None if unknown)."""

MAX_REDIRECTS = 5
CHUNK = 1 << 20


@dataclass(frozen=True)
class WeightFile:
    """One pinned file of weights.

    Attributes:
        name: what ``negbench prefetch`` calls it.
        url: where it comes from.
        sha256: digest of the whole file.
        size: bytes; a download that grows beyond it is broken off.
        licence: of the weights, as their publisher states it.
        hosts: further hosts that a redirect may lead to.
        serves: what it is needed for, for people.
    """

    name: str
    url: str
    sha256: str
    size: int
    licence: str
    serves: str
    hosts: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """The file's name, in our folder and in torch hub's."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1].replace("%2B", "+")


# The digests were compared with those that other public projects pin for the same files; LAION's
# was also computed from the file in the repository, at the commit in its address.
FILES: dict[str, WeightFile] = {
    file.name: file
    for file in (
        WeightFile(
            name="inception-v3",
            url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            size=95_628_359,
            licence="Apache-2.0",
            serves="inception_score of real pictures",
            hosts=("objects.githubusercontent.com", "release-assets.githubusercontent.com"),
        ),
        WeightFile(
            name="laion-v2",
            url="https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/"
            "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
            sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
            size=3_714_759,
            licence="Apache-2.0",
            serves="aesthetic of real pictures (with clip:ViT-L-14/openai)",
        ),
        WeightFile(
            name="lpips-alex",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            size=244_408_911,
            licence="BSD-3-Clause (torchvision)",
            serves="lpips with net=alex",
        ),
        WeightFile(
            name="lpips-vgg",
            url="https://download.pytorch.org/models/vgg16-397923af.pth",
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            size=1 << 30,
            licence="BSD-3-Clause (torchvision)",
            serves="lpips with net=vgg",
        ),
    )
}

BUNDLES: dict[str, tuple[str, ...]] = {
    "inception_score": ("inception-v3",),
    "clip_alignment": ("clip:ViT-L-14/openai",),
    "clip_to_negative": ("clip:ViT-L-14/openai",),
    "aesthetic": ("clip:ViT-L-14/openai", "laion-v2"),
    "lpips": ("lpips-alex",),
    "real-pictures": ("inception-v3", "clip:ViT-L-14/openai", "laion-v2", "lpips-alex"),
}
"""Names of several weights: those of a metric for real pictures, or of all of them."""


def weights_dir() -> Path:
    """Where prefetched files lie: ``weights`` in the cache of this machine (`user_cache`)."""
    return user_cache() / "weights"


def _torch_hub_dir() -> Path:
    """Torch hub's folder of checkpoints, found as `torch.hub.get_dir` finds it, without torch."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        home = str(Path(base) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _known(name: str) -> WeightFile:
    try:
        return FILES[name]
    except KeyError:
        hint = did_you_mean(name, [*FILES, *BUNDLES])
        raise UnknownNameError(f"unknown weights {name!r}; {hint}") from None


def find(name: str) -> Path:
    """The file of `name`, its digest checked.

    Looks into `weights_dir` and into torch hub's folder of checkpoints.

    Raises:
        UnknownNameError: no such weights.
        MissingError: the file is not at hand; the message has the command that fetches it.
        ConfigError: the file in our folder is not the pinned one.
    """
    file = _known(name)
    ours = weights_dir() / file.filename
    if ours.is_file():
        found = file_digest(ours)
        if found != file.sha256:
            raise ConfigError(
                f"{ours} is not the pinned file of {name} (sha256 {found[:12]}… instead of "
                f"{file.sha256[:12]}…); delete it and run `negbench prefetch {name}`"
            )
        return ours
    hub = _torch_hub_dir() / file.filename
    if hub.is_file() and file_digest(hub) == file.sha256:
        return hub
    raise MissingError(
        f"weights {name} ({file.size / 1e6:.0f} MB, {file.licence}) are not at hand; "
        f"fetch them with `negbench prefetch {name}`"
    )


def load_pickle(name: str) -> dict[str, torch.Tensor]:
    """The state dict of pinned weights: bytes read once, digest checked, ``weights_only=True``.

    Raises:
        MissingError: the file is not at hand.
        ConfigError: it is not the pinned file.
        DataError: it holds no state dict.
    """
    import torch

    path = find(name)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _known(name).sha256:
        raise ConfigError(f"{path} changed while it was read; run `negbench prefetch {name}`")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise DataError(f"{path} holds no state dict; delete it and run `negbench prefetch {name}`")
    return dict(state)


def expand(names: Iterable[str]) -> list[str]:
    """`names` with bundles opened, each once, all of them known.

    Raises:
        UnknownNameError: nothing has this name.
    """
    flat: dict[str, None] = {}
    for name in names:
        for part in BUNDLES.get(name, (name,)):
            if not part.startswith("clip:"):
                _known(part)
            flat[part] = None
    return list(flat)


def prefetch(
    names: Iterable[str], *, progress: Progress | None = None
) -> Iterator[tuple[str, Path]]:
    """Fetch weights, for nodes without internet too: what lies in the caches is enough for a run.

    Args:
        names: names of `FILES` or `BUNDLES`, or ``clip:<spec>`` for a CLIP of the Hugging Face Hub.
        progress: told of the bytes that came in.

    Yields:
        Each name and where its weights lie, also if they were there before.

    Raises:
        UnknownNameError: nothing has this name; nothing was fetched then.
        MissingError: no connection, or the server has not got the file.
        DataError: what came is not the pinned file.
        StorageError: the disk is full or the cache cannot be written.
    """
    for name in expand(names):
        if name.startswith("clip:"):
            from negbench.metrics.clip_network import fetch_clip

            yield name, fetch_clip(name.removeprefix("clip:"))
            continue
        try:
            yield name, find(name)
        except (MissingError, ConfigError):
            yield name, download(FILES[name], progress=progress)


def download(
    file: WeightFile, *, progress: Progress | None = None, client: httpx.Client | None = None
) -> Path:
    """Download one pinned file into `weights_dir`; it appears there whole and checked, or not.

    Redirects are followed to the file's own hosts only, and only over https.
    """
    import httpx

    folder = make_folder(weights_dir())
    target = folder / file.filename
    owned = client is None
    client = client or httpx.Client(timeout=httpx.Timeout(30.0, connect=15.0))
    try:
        return _download(file, target, client, progress)
    except httpx.HTTPError as error:
        raise MissingError(
            f"cannot fetch {file.name} from {urlsplit(file.url).hostname}: "
            f"{one_line(str(error), limit=160) or type(error).__name__}; on a machine with "
            f"internet run `negbench prefetch {file.name}` and copy {target} from there to here"
        ) from error
    finally:
        if owned:
            client.close()


def _download(
    file: WeightFile, target: Path, client: httpx.Client, progress: Progress | None
) -> Path:
    allowed = {str(urlsplit(file.url).hostname), *file.hosts}
    url = file.url
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname not in allowed:
            raise DataError(
                f"{file.name}: the server leads to {parts.scheme}://{parts.hostname}, which is "
                "not a known host of these weights; not followed"
            )
        with client.stream("GET", url, follow_redirects=False) as response:
            if response.is_redirect:
                url = urljoin(url, response.headers["location"])
                continue
            if response.status_code != 200:
                raise MissingError(
                    f"cannot fetch {file.name}: {parts.hostname} answers {response.status_code}; "
                    "try again later"
                )
            length = response.headers.get("content-length", "")
            total = int(length) if length.isdigit() else None
            return _receive(file, target, response.iter_bytes(CHUNK), total, progress)
    raise DataError(f"{file.name}: more than {MAX_REDIRECTS} redirects; not followed")


def _receive(
    file: WeightFile,
    target: Path,
    chunks: Iterator[bytes],
    total: int | None,
    progress: Progress | None,
) -> Path:
    digest, size = hashlib.sha256(), 0
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as part:
            for chunk in chunks:
                size += len(chunk)
                if size > file.size:
                    raise DataError(f"{file.name}: more than {file.size} bytes came; broken off")
                digest.update(chunk)
                part.write(chunk)
                if progress is not None:
                    progress(file.name, size, total)
            part.flush()
            os.fsync(part.fileno())
        if digest.hexdigest() != file.sha256:
            raise DataError(
                f"{file.name}: what came ({size} bytes, sha256 {digest.hexdigest()[:12]}…) is not "
                f"the pinned file ({file.sha256[:12]}…); nothing was kept, try again"
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        temporary = ""
        return target
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
