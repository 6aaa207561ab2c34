"""Texts that picture files carry, read chunk by chunk without decoding a pixel.

PNG tEXt, zTXt, iTXt and eXIf before and after the pixels, JPEG EXIF, XMP and comments, WebP EXIF
and XMP. Pillow reads the EXIF directory; the walk over chunks is our own because Pillow stops at
broken pixels, reads UTF-8 in tEXt as Latin-1, and has to see the whole file for chunks at its end.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

MAX_CHUNK = 16 * 2**20
"""Most bytes of one text, packed or unpacked."""
MAX_CHUNKS = 100_000
"""Most chunks walked in one file."""

EXIF_TEXTS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject",
}


@dataclass
class Carried:
    """What a picture file carries besides its pixels.

    Attributes:
        format: ``png``, ``jpeg`` or ``webp``.
        width: pixels, as the header says.
        height: pixels, as the header says.
        alpha: whether the header says that there is an alpha channel.
        texts: keyword -> text of PNG text chunks.
        exif: tag -> text of EXIF.
        others: texts of XMP and comments.
        problems: what could not be read, in words.
    """

    format: str
    width: int | None = None
    height: int | None = None
    alpha: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    exif: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class NotAPictureError(Exception):
    """The file is no PNG, JPEG or WebP; the message is the reason."""


def read_carried(path: Path) -> Carried:
    """All texts of one file.

    Raises:
        NotAPictureError: the file is empty or of another format.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
        stream.seek(0)
        if not head:
            raise NotAPictureError("file is empty")
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(stream)
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg(stream)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp(stream)
    raise NotAPictureError("not a PNG, JPEG or WebP picture")


def _png(stream: IO[bytes]) -> Carried:
    found = Carried("png")
    stream.seek(8)
    for _ in range(MAX_CHUNKS):
        header = stream.read(8)
        if len(header) < 8:
            found.problems.append("file is truncated")
            break
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            break
        if kind not in (b"IHDR", b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            stream.seek(length + 4, 1)
            continue
        if length > MAX_CHUNK:
            found.problems.append(f"{kind.decode()} chunk of {length} bytes is above the bound")
            stream.seek(length + 4, 1)
            continue
        data = stream.read(length)
        stream.seek(4, 1)
        if len(data) < length:
            found.problems.append("file is truncated")
            break
        if kind == b"IHDR" and length >= 13:
            found.width, found.height = struct.unpack(">II", data[:8])
            found.alpha = data[9] in (4, 6)
        elif kind == b"eXIf":
            _exif(found, data)
        else:
            _png_text(found, kind, data)
    return found


def _png_text(found: Carried, kind: bytes, data: bytes) -> None:
    keyword, sign, rest = data.partition(b"\0")
    if not sign:
        return
    key = keyword.decode("latin-1").strip()
    if kind == b"tEXt":
        text: bytes | None = rest
    elif kind == b"zTXt":
        text = _unpack(found, rest[1:])
    else:
        packed = rest[:1] == b"\1"
        _, _, after = rest[2:].partition(b"\0")
        _, _, body = after.partition(b"\0")
        text = _unpack(found, body) if packed else body
    if text is None:
        return
    try:
        value = text.decode("utf-8")
    except UnicodeDecodeError:
        value = text.decode("latin-1")
    value = value.strip("\0")
    if key in found.texts and found.texts[key].strip():
        return  # the first of two chunks of one name is the writer's own
    found.texts[key] = value


def _unpack(found: Carried, data: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_CHUNK)
    except zlib.error:
        found.problems.append("packed text is damaged")
        return None
    if unpacker.unconsumed_tail:
        found.problems.append(f"packed text unpacks to more than {MAX_CHUNK >> 20} MiB")
        return None
    return text


def _jpeg(stream: IO[bytes]) -> Carried:
    found = Carried("jpeg")
    stream.seek(2)
    for _ in range(MAX_CHUNKS):
        byte = stream.read(1)
        while byte and byte != b"\xff":
            byte = stream.read(1)
        while byte == b"\xff":
            byte = stream.read(1)
        if not byte:
            found.problems.append("file is truncated")
            break
        marker = byte[0]
        if marker in (0xD9, 0xDA):
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        size = stream.read(2)
        if len(size) < 2 or (length := struct.unpack(">H", size)[0] - 2) < 0:
            found.problems.append("file is truncated")
            break
        frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if marker not in (0xE1, 0xFE) and not frame:
            stream.seek(length, 1)
            continue
        data = stream.read(length)
        if frame and len(data) >= 5:
            found.height, found.width = struct.unpack(">HH", data[1:5])
        elif marker == 0xFE:
            found.others.append(_decode_plain(data))
        elif data.startswith(b"Exif\0"):
            _exif(found, data[6:])
        elif data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            _xmp(found, data[29:])
        if len(data) < length:
            found.problems.append("file is truncated")
            break
    return found


def _webp(stream: IO[bytes]) -> Carried:
    found = Carried("webp")
    stream.seek(12)
    for _ in range(MAX_CHUNKS):
        header = stream.read(8)
        if not header:
            break
        if len(header) < 8:
            found.problems.append("file is truncated")
            break
        kind, length = struct.unpack("<4sI", header)
        padded = length + (length & 1)
        if kind not in (b"EXIF", b"XMP ", b"VP8X", b"VP8 ", b"VP8L"):
            stream.seek(padded, 1)
            continue
        if kind in (b"VP8 ", b"VP8L"):
            data = stream.read(min(10, length))
            stream.seek(padded - len(data), 1)
        elif length > MAX_CHUNK:
            found.problems.append(f"{kind.decode()} chunk of {length} bytes is above the bound")
            stream.seek(padded, 1)
            continue
        else:
            data = stream.read(length)
            stream.seek(length & 1, 1)
        if kind == b"VP8X" and len(data) >= 10:
            found.alpha = bool(data[0] & 0x10)
            found.width = int.from_bytes(data[4:7], "little") + 1
            found.height = int.from_bytes(data[7:10], "little") + 1
        elif kind == b"VP8 " and len(data) >= 10 and found.width is None:
            found.width = int.from_bytes(data[6:8], "little") & 0x3FFF
            found.height = int.from_bytes(data[8:10], "little") & 0x3FFF
        elif kind == b"VP8L" and len(data) >= 5:
            bits = int.from_bytes(data[1:5], "little")
            found.alpha = bool(bits >> 28 & 1)
            if found.width is None:
                found.width, found.height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            _exif(found, data[6:] if data.startswith(b"Exif\0\0") else data)
        elif kind == b"XMP ":
            _xmp(found, data)
    return found


def _exif(found: Carried, data: bytes) -> None:
    """Texts of a TIFF directory; Pillow reads it, a damaged one is a problem and no error."""
    from PIL import Image

    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.load(data)
            tags = dict(exif)
            inner = dict(exif.get_ifd(0x8769))
        except Exception as error:
            found.problems.append(f"EXIF is damaged ({type(error).__name__})")
            return
    comment = inner.get(0x9286, tags.get(0x9286))
    if isinstance(comment, bytes):
        found.exif.setdefault("UserComment", decode_user_comment(comment))
    elif isinstance(comment, str):
        found.exif.setdefault("UserComment", _undo_latin1(comment))
    for tag, name in EXIF_TEXTS.items():
        value = tags.get(tag)
        if isinstance(value, tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
            value = bytes(value)
        if isinstance(value, bytes):
            text = value.decode("utf-16-le", "replace") if tag >= 0x9C00 else _decode_plain(value)
        elif isinstance(value, str):
            text = _undo_latin1(value)
        else:
            continue
        if text.strip("\0 "):
            found.exif.setdefault(name, text.strip("\0"))


def decode_user_comment(data: bytes) -> str:
    """Text of an EXIF UserComment (Exif 2.32, 4.6.5: an 8-byte code, then the text).

    Writers disagree on the byte order of ``UNICODE`` and some put UTF-8 there; the reading with
    the most ASCII characters is the right one, since separators and field names are ASCII.
    """
    code, body = data[:8], data[8:]
    if code.startswith(b"UNICODE"):
        return _best(body, ("utf-16-be", "utf-16-le", "utf-8"))
    if code.startswith(b"ASCII"):
        return _decode_plain(body)
    if code.startswith(b"JIS"):
        escaped = ("iso2022_jp",) if b"\x1b" in body else ()
        return _best(body, escaped or ("shift_jis", "euc_jp", "utf-8"))
    if code == b"\0" * 8:
        return _best(body, ("utf-8", "utf-16-be", "utf-16-le"))
    return _best(data, ("utf-8", "utf-16-be", "utf-16-le"))


def _best(data: bytes, encodings: tuple[str, ...]) -> str:
    if data[:2] == b"\xfe\xff" or data[:2] == b"\xff\xfe":
        encodings = ("utf-16", *encodings)
    best, best_score = "", -1.0
    for encoding in encodings:
        even = data[: len(data) & ~1] if encoding.startswith("utf-16") else data
        try:
            text = even.decode(encoding)
        except UnicodeDecodeError:
            continue
        text = text.rstrip("\0")
        plain = sum(1 for c in text if " " <= c <= "~" or c in "\n\r\t")
        score = plain * 2 / (len(text) + 1) + plain / (len(data) + 1)
        score -= text.count("\0") / (len(text) + 1) * 4
        if score > best_score + 1e-9:
            best, best_score = text, score
    return best if best_score >= 0 else _decode_plain(data)


def _decode_plain(data: bytes) -> str:
    data = data.rstrip(b"\0")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _undo_latin1(text: str) -> str:
    """Pillow reads EXIF ASCII as Latin-1; where its bytes are UTF-8, that is the text."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _xmp(found: Carried, data: bytes) -> None:
    """Texts of an XMP packet; document types and entities are refused (no expansion bombs)."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        found.problems.append("XMP with a document type is refused")
        return
    try:
        root = ElementTree.fromstring(data.strip(b"\0 \r\n"))  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError):
        found.problems.append("XMP is damaged")
        return
    for element in root.iter():
        name = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
        if name in ("usercomment", "description", "parameters", "prompt", "title"):
            text = "".join(element.itertext()).strip()
            if text:
                found.others.append(text)
        for key, value in element.attrib.items():
            if key.rpartition("}")[2].lower() in ("usercomment", "description", "parameters"):
                found.others.append(value)
