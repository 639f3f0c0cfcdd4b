"""The web process alone, with MongoDB and Redis, for what needs neither gateway nor worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Self

import httpx

from imserver.conf import BASE_DIR
from tests.stack import Stack


class WebStack(Stack):
    """Its files are in the folder that it is given."""

    @property
    def environ(self) -> dict[str, str]:
        return {"DATA_DIR": str(self.folder / "data"), **super().environ}

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        prepare = [sys.executable, "manage.py", "prepare"]
        subprocess.run(prepare, env=self.environ, cwd=BASE_DIR, check=True, capture_output=True)
        self.start_web()
        return self

    def start_web(self) -> None:
        self._spawn("web", [sys.executable, "-m", "imserver"])
        self._wait("the web process", lambda: httpx.get(self.web_url).status_code == 200)

    def restart_web(self) -> None:
        """SIGKILL, then a new one on the same port."""
        self._end("web", signal.SIGKILL)
        self.start_web()
