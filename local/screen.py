"""A live bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from local.story import Story, percent

PLAIN_EVERY_SECONDS = 5.0


class Screen:
    """Use as a context manager: whatever happens inside, the terminal is left as it was."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._next_plain = 0.0
        self._last_plain = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, facts="")

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """A line that stays, with the seconds since the start before it."""
        self.console.print(
            f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, highlight=False, soft_wrap=True
        )

    def step(self, text: str) -> None:
        """What is being started right now."""
        if self.console.is_terminal:
            self._bar.update(self._task, description="starting", facts=text)
        else:
            self.line(f"starting: {text}")

    def show(self, story: Story) -> None:
        total = 1.0 if story.status == "running" else None
        self._bar.update(
            self._task, description=story.status, total=total, completed=story.fraction, facts=story.facts()
        )
        if not self.console.is_terminal:
            self._plain(story)

    def _plain(self, story: Story) -> None:
        facts = story.facts()
        if time.monotonic() < self._next_plain or facts == self._last_plain or story.status != "running":
            return
        self._next_plain, self._last_plain = time.monotonic() + PLAIN_EVERY_SECONDS, facts
        self.line(f"{percent(story.fraction)}  {facts}")
