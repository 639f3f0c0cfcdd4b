"""Log lines never show what a function held: a token, a message."""

from __future__ import annotations

import io
import logging
import logging.config

import pytest

from imserver.log import logging_config


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_in_the_log_does_not_show_local_variables(log_format: str) -> None:
    out = io.StringIO()
    config = logging_config("INFO", log_format)
    config["handlers"]["stderr"]["stream"] = out
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        logging.config.dictConfig(config)
        try:
            token = "secret-" + "token"
            raise RuntimeError("broken")
        except RuntimeError as error:
            logging.getLogger("imserver.test").error("it failed", exc_info=error)
    finally:
        root.handlers, root.level = before
    assert "broken" in out.getvalue()
    assert "it failed" in out.getvalue()
    assert token not in out.getvalue()
