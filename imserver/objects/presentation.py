"""How a file is shown: what a browser may open by itself, and what it may only save."""

from __future__ import annotations

import mimetypes
import re

from imserver.objects.base import Shown

DEFAULT_TYPE = "application/octet-stream"
#: Parameters may be what browsers' recorders say: ``codecs=vp8,opus``, ``codecs="avc1.42E01E, mp4a.40.2"``.
CONTENT_TYPE = re.compile(
    r"[\w!#$&^.+-]{1,100}/[\w!#$&^.+-]{1,100}(\s*;\s*[\w-]{1,100}=(\"[\w ,.+-]{0,200}\"|[\w,.+-]{1,200})){0,3}",
    re.ASCII,
)

#: Types that run nothing in the page's name. Everything else is saved and not opened.
_INLINE = frozenset(
    {
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/heic",
        "image/heif",
        "image/jpeg",
        "image/jpg",
        "image/png",
        "image/webp",
        "image/x-icon",
        "text/plain",
    }
)
_INLINE_FAMILIES = ("audio/", "video/")
#: What a browser would run if it opened it: handed out as bytes of no kind.
_ACTIVE = re.compile(r"(html|xml|svg|script|ecmascript|wasm|x-shockwave|x-silverlight|xbl|x-mimearchive|multipart/)")


def guess_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or DEFAULT_TYPE


def shown(name: str, content_type: str) -> Shown:
    """A file of this name and type as it is handed out."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _INLINE or (kind.startswith(_INLINE_FAMILIES) and not _ACTIVE.search(kind)):
        return Shown(name.rpartition("/")[2], content_type, is_inline=True)
    return Shown(name.rpartition("/")[2], DEFAULT_TYPE if _ACTIVE.search(kind) else content_type, is_inline=False)
