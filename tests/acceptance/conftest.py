"""Fixtures of the tests that drive OpenIM's SDKs in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.wasm.driver import SdkBrowser, what_is_missing
from tests.stack import Stack


@pytest.fixture(scope="module")
def sdk_browser(stack: Stack) -> Iterator[SdkBrowser]:
    """A Chromium for the whole module."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with SdkBrowser(stack) as browser:
        yield browser


@pytest.fixture
def sdk(sdk_browser: SdkBrowser) -> Iterator[SdkBrowser]:
    """Makes users: ``sdk.login("Alice")``. At the end no page may have seen a script error."""
    sdk_browser.errors.clear()
    yield sdk_browser
    sdk_browser.log_everybody_out()
    assert sdk_browser.errors == []
