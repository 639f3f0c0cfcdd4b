"""Every codec by the name that clients ask for."""

from __future__ import annotations

from gateway.codecs.base import Codec, CodecError
from gateway.codecs.gob_codec import GobCodec
from gateway.codecs.json_codec import JsonCodec
from gateway.codecs.plain_codec import PlainCodec

_ALL: tuple[Codec, ...] = (GobCodec(), JsonCodec(), PlainCodec())

#: ``sdkType`` -> codec. The instances are shared by all connections.
CODECS: dict[str, Codec] = {codec.name: codec for codec in _ALL}


def get_codec(name: str) -> Codec:
    """The codec called ``name``.

    Raises:
        CodecError: there is none; the text lists those that exist.
    """
    codec = CODECS.get(name)
    if codec is None:
        raise CodecError(f"unknown codec {name!r}: expected one of {', '.join(sorted(CODECS))}")
    return codec
