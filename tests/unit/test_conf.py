from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from django.core.management import call_command

from imserver.conf import BASE_DIR, Config, ConfigError, load_config
from imserver.management.commands.checkconfig import find_source, listing, markdown


def test_every_setting_has_a_default_that_is_accepted() -> None:
    assert load_config({}) == Config()


def test_values_are_read_by_their_names_and_typed() -> None:
    config = load_config({"GATEWAY_PORT": "12001", "FRIEND_CHECK": "yes", "ADMIN_USER_IDS": "a, b,"})

    assert config.gateway_port == 12001
    assert config.friend_check is True
    assert config.admins == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("GATEWAY_PORT", "high", "whole number"),
        ("GATEWAY_PORT", "70000", "at most 65535"),
        ("SHARDS", "0", "at least 1"),
        ("DEMO", "perhaps", "expected 1 or 0"),
        ("MULTI_LOGIN_POLICY", "2", "one of 0, 1, 4, 5"),
        ("REDIS_URL", "localhost:6379", "does not look like"),
        ("MONGO_URL", "", "does not look like"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG"),
        ("NODE_TTL_MS", "2500", "three times NODE_HEARTBEAT_MS"),
        ("BROKER_URL", "rabbit", "expected an address"),
        ("CHANNEL_LAYER_URLS", "redis://a/0,b", "does not look like"),
        ("AUTH_SECRET", "", "secret of your own"),
        ("ADMIN_USER_IDS", " , ", "at least one"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_setting(name: str, value: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=name) as refused:
        load_config({name: value})

    assert hint in str(refused.value)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("from-file\n", encoding="utf-8")

    assert load_config({"AUTH_SECRET_FILE": str(path)}).auth_secret == "from-file"


def test_the_variable_itself_wins_over_the_file(tmp_path: Path) -> None:
    environ = {"AUTH_SECRET": "plain", "AUTH_SECRET_FILE": str(tmp_path / "absent")}

    assert load_config(environ).auth_secret == "plain"


def test_an_unreadable_secret_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AUTH_SECRET_FILE"):
        load_config({"AUTH_SECRET_FILE": str(tmp_path / "absent")})


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "host"
    path.write_text("elsewhere", encoding="utf-8")

    assert load_config({"BIND_HOST_FILE": str(path)}).bind_host == Config().bind_host


def test_broker_and_channel_layer_default_to_the_data_server() -> None:
    config = load_config({"REDIS_URL": "redis://r/3"})

    assert config.broker == "redis://r/3"
    assert config.channel_layer_hosts == ["redis://r/3"]


def test_the_configuration_page_is_current() -> None:
    page = BASE_DIR / "docs" / "configuration.md"

    assert page.read_text(encoding="utf-8") == markdown(), (
        "run manage.py checkconfig --markdown > docs/configuration.md"
    )


def test_the_env_example_names_only_settings_that_exist() -> None:
    lines = (BASE_DIR / ".env.example").read_text(encoding="utf-8").splitlines()
    named = {line.lstrip("#").split("=")[0] for line in lines if "=" in line and not line.startswith("# ")}

    assert named <= {option.name.upper() for option in dataclasses.fields(Config)}


def test_the_listing_hides_secrets_and_passwords() -> None:
    config = Config(auth_secret="hush", redis_url="redis://me:hush@host/0")

    text = "\n".join(listing(config, {}, {}))

    assert "hush" not in text
    assert "redis://me:***@host/0" in text


def test_the_source_of_a_value_is_told() -> None:
    dotenv = {"SHARDS": "8", "DEMO": "1"}
    environ = {"SHARDS": "8", "DEMO": "0", "AUTH_SECRET_FILE": "/run/secret"}

    assert find_source("SHARDS", environ, dotenv) == ".env"
    assert find_source("DEMO", environ, dotenv) == "environment"
    assert find_source("AUTH_SECRET", environ, dotenv, may_be_file=True) == "AUTH_SECRET_FILE (environment)"
    assert find_source("WEB_PORT", environ, dotenv) == "default"


def test_checkconfig_ends_with_the_sentence_when_a_value_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDS", "many")
    stderr = io.StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("checkconfig", stderr=stderr)

    assert ended.value.code == 1
    assert "SHARDS='many': expected a whole number" in stderr.getvalue()
