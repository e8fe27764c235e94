"""Commands that run beside the page: each a process of its own, with a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TAIL = 20_000
"""Most bytes of a log that are shown."""


@dataclass
class Job:
    """A `distill` command."""

    title: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path, *arguments: str) -> Job:
        """Begin; what it prints goes to a file in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{len(JOBS)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "distill.core", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, env={**os.environ, "COLUMNS": "110"},
            )  # fmt: skip
        JOBS.append(cls(f"distill {' '.join(arguments)}", log, process))
        return JOBS[-1]

    @property
    def state(self) -> str:
        """How it stands, in a word or two."""
        code = self.process.poll()
        return "running" if code is None else "finished" if code == 0 else f"ended with exit code {code}"

    def text(self) -> str:
        """The end of what it printed."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode(errors="replace")

    def stop(self) -> None:
        """End it with all of its children; what it had finished stays."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


JOBS: list[Job] = []
"""Every job of this process, the newest last."""


def stop_all() -> None:
    """End what still runs."""
    for job in JOBS:
        if job.state == "running":
            job.stop()
