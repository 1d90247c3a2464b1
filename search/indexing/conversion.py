"""Pictures in formats that the service does not read (HEIC, JPEG XL, cameras' raw files) as JPEG, upright.

What a file is, its first bytes say; a raw file is also known by its name, since most begin as TIFFs do. Conversion is
done by a process of its own (``conversion_process``), which a broken file may take down.
"""

from __future__ import annotations

from typing import Literal

from search.indexing.apart import run_apart

Foreign = Literal["HEIF", "JXL", "RAW"]
RAW_SUFFIXES = frozenset(
    {"dng", "nef", "nrw", "cr2", "cr3", "arw", "srf", "sr2", "raf", "orf", "rw2", "pef", "srw", "3fr", "iiq", "rwl"}
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_JXL_MARKS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_PLAIN_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")


def foreign_format(data: bytes, name: str) -> Foreign | None:
    """Return what the picture ``data`` from the file ``name`` has to be converted from; None where it is read as it
    is, or is no picture.
    """
    if data.startswith(_JXL_MARKS):
        return "JXL"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
        if brands & _HEIF_BRANDS and data[8:12] not in _AVIF_BRANDS:
            return "HEIF"
    if name.rpartition(".")[2].lower() in RAW_SUFFIXES and not data.startswith(_PLAIN_MARKS):
        return "RAW"
    return None


def converted(data: bytes, format: Foreign, *, max_pixels: int) -> bytes:
    """Return ``data`` as JPEG; of a raw file the largest preview in it. Blocks.

    Raises ``ServiceError`` UNREADABLE_PICTURE.
    """
    what = f"No picture could be taken from the {format} file"
    return run_apart("search.indexing.conversion_process", format, str(max_pixels), data=data, what=what)
