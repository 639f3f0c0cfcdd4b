"""A vendor's settings: what is missing or unusable is named before anything starts."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from imserver.conf import VENDOR_SETTINGS, ConfigError, load_config
from imserver.vendors.registry import VENDORS, create_vendor
from tests.push_vendors import EC_KEY, RSA_KEY, pem


def test_every_vendor_of_the_settings_exists() -> None:
    assert {name for name in VENDOR_SETTINGS if name} == set(VENDORS)
    assert create_vendor(load_config({})) is None


@pytest.mark.parametrize("vendor", [name for name, needed in VENDOR_SETTINGS.items() if needed])
def test_each_missing_setting_is_named(vendor: str) -> None:
    needed = VENDOR_SETTINGS[vendor]
    for missing in needed:
        given = {name.upper(): "x" for name in needed if name != missing}

        with pytest.raises(ConfigError, match=rf"'{vendor}': missing {missing.upper()}$"):
            load_config({"OFFLINE_PUSH_VENDOR": vendor, **given})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    account = {"client_email": "a@b", "project_id": "p", "private_key": pem(RSA_KEY)}
    path = tmp_path / "account.json"
    path.write_bytes(orjson.dumps(account))

    config = load_config({"OFFLINE_PUSH_VENDOR": "fcm", "FCM_SERVICE_ACCOUNT_FILE": str(path)})

    assert create_vendor(config) is not None


@pytest.mark.parametrize(
    "account",
    [
        "",
        "[]",
        "{}",
        "not JSON",
        {"client_email": "a@b", "project_id": "p", "private_key": "no key"},
        {"client_email": "a@b", "project_id": "p", "private_key": pem(EC_KEY)},
        {"client_email": "a@b", "private_key": pem(RSA_KEY)},
    ],
    ids=["empty", "list", "bare", "text", "no key", "other key", "no project"],
)
def test_a_service_account_that_cannot_be_used_is_refused_without_showing_it(account: object) -> None:
    text = account if isinstance(account, str) else orjson.dumps(account).decode()

    with pytest.raises(ConfigError, match="FCM_SERVICE_ACCOUNT") as refused:
        create_vendor(load_config({"OFFLINE_PUSH_VENDOR": "fcm", "FCM_SERVICE_ACCOUNT": text}))

    assert "PRIVATE KEY" not in str(refused.value)


@pytest.mark.parametrize("key", ["no key", pem(RSA_KEY)], ids=["no key", "other key"])
def test_an_apns_key_that_cannot_be_used_is_refused(key: str) -> None:
    names = {"APNS_KEY_ID": "k", "APNS_TEAM_ID": "t", "APNS_TOPIC": "x"}

    with pytest.raises(ConfigError, match="APNS_KEY"):
        create_vendor(load_config({"OFFLINE_PUSH_VENDOR": "apns", "APNS_KEY": key, **names}))


def test_addresses_must_be_http() -> None:
    with pytest.raises(ConfigError, match="FCM_URL"):
        load_config({"FCM_URL": "fcm.example.org"})
    with pytest.raises(ConfigError, match="FCM_TOKEN_URL"):
        load_config({"FCM_TOKEN_URL": "ftp://x"})
