"""Which vendors there are."""

from __future__ import annotations

from imserver.conf import Config
from imserver.vendors.apns import Apns
from imserver.vendors.base import Vendor
from imserver.vendors.dummy import Dummy
from imserver.vendors.fcm import Fcm
from imserver.vendors.getui import Getui
from imserver.vendors.jpush import JPush
from imserver.vendors.xiaomi import Xiaomi

VENDORS: dict[str, type[Vendor]] = {vendor.name: vendor for vendor in (Fcm, Apns, JPush, Getui, Xiaomi, Dummy)}


def create_vendor(config: Config) -> Vendor | None:
    """The configured vendor, None when there is none. Raises ConfigError when its credentials cannot be used."""
    kind = VENDORS.get(config.offline_push_vendor)
    return None if kind is None else kind(config)
