"""The terraform commands of one run, in its folder, on its workspace.

A session plans, shows, applies and repairs the state; what to repair is `recovery`'s decision and what may
be applied `guard`'s. Variables go through a file that is removed as soon as terraform has read it, the
saved plan through one that is removed as soon as it is applied: both hold configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.ports import ResourceEvent
from controlplane.workers.providers.terraform import diagnostics, process
from controlplane.workers.providers.terraform.commands import Commands
from controlplane.workers.providers.terraform.events import Stream
from controlplane.workers.providers.terraform.folder import RunFolder
from controlplane.workers.providers.terraform.locks import LockWatch
from controlplane.workers.providers.terraform.state import Lock

PLAN_TIMEOUT = 600.0  # seconds; refreshing a stack takes seconds, a throttled account minutes
APPLY_TIMEOUT = 5400.0  # seconds; an Aurora instance may take 10 minutes, its deletion as long
SHORT_TIMEOUT = 120.0  # seconds, for everything else

_APPLYING = frozenset({"started", "progress", "done", "failed"})
_PLANNING = frozenset({"planned"})


class Session:
    def __init__(
        self,
        commands: Commands,
        folder: RunFolder,
        workspace: str,
        *,
        environment: Mapping[str, str],
        read_lock: Callable[[], Lock | None],
        on_event: Callable[[ResourceEvent], None],
        stopped: Callable[[], bool],
    ) -> None:
        """`environment`: all that terraform gets to see, TF_DATA_DIR included."""
        self._commands = commands
        self._folder = folder
        self._workspace = workspace
        self._environment = dict(environment)
        self._read_lock = read_lock
        self._stopped = stopped
        self._saved = folder.path / "plan.bin"
        self._adopt = folder.path / "adopt.tf.json"
        self.on_event = on_event

    def plan(
        self,
        variables: Mapping[str, Any],
        *,
        adopt: Mapping[str, str] | None = None,
        targets: Sequence[str] = (),
        destroy: bool = False,
    ) -> bool:
        """Save a plan; True where it changes anything. `adopt`: import ids by address."""
        self._write_imports(adopt or {})
        file = self._folder.path / "variables.tfvars.json"
        _write(file, variables)
        stream = Stream(self.on_event, kinds=_PLANNING)
        try:
            done = self._run(
                "plan",
                self._commands.make_plan(self._saved, file, targets=targets, destroy=destroy),
                PLAN_TIMEOUT,
                stream=stream,
            )
        finally:
            file.unlink(missing_ok=True)
        if done.code not in {0, 2}:
            raise diagnostics.failure("plan", done.code, stream.errors or diagnostics.of_stderr(done.errors))
        return done.code == 2

    def show(self) -> dict[str, Any]:
        """The saved plan as JSON."""
        done = self._run("show", self._commands.show_plan(self._saved), SHORT_TIMEOUT)
        self._check("show", done)
        text = done.text()
        done.output.unlink()
        try:
            shown: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise NeedsHuman(
                "terraform show printed no JSON, so the plan could not be checked",
                runbook="terraform-configuration",
            ) from error
        return shown

    def apply(self) -> dict[str, Any]:
        """Apply the saved plan; return the stack's outputs."""
        stream = Stream(self.on_event, kinds=_APPLYING)
        try:
            done = self._run("apply", self._commands.apply_plan(self._saved), APPLY_TIMEOUT, stream=stream)
        finally:
            self._saved.unlink(missing_ok=True)
        if done.code != 0:
            raise diagnostics.failure("apply", done.code, stream.errors or diagnostics.of_stderr(done.errors))
        return stream.outputs

    def untaint(self, address: str) -> None:
        self._short("untaint", self._commands.untaint(address))

    def forget(self, addresses: Sequence[str]) -> None:
        self._short("state-rm", self._commands.forget(addresses))

    def push_state(self, state: Path) -> None:
        self._short("state-push", self._commands.push_state(state))

    def delete_workspace(self) -> None:
        self._short("workspace-delete", self._commands.delete_workspace(self._workspace), workspace=False)

    def _short(self, name: str, command: list[str], *, workspace: bool = True) -> None:
        self._check(name, self._run(name, command, SHORT_TIMEOUT, workspace=workspace))

    def _check(self, name: str, done: process.Finished) -> None:
        if done.code != 0:
            raise diagnostics.failure(name, done.code, diagnostics.of_stderr(done.errors))

    def _run(
        self,
        name: str,
        command: list[str],
        timeout: float,
        *,
        stream: Stream | None = None,
        workspace: bool = True,
    ) -> process.Finished:
        environment = dict(self._environment)
        if workspace:
            environment["TF_WORKSPACE"] = self._workspace
        with self._lock_noted(stream is not None) as on_tick:
            done = process.run(
                command,
                folder=self._folder.path,
                name=name,
                environment=environment,
                timeout=timeout,
                stopped=self._stopped,
                on_line=stream.line if stream else lambda _line: None,
                on_tick=on_tick,
                keep_open=(self._folder.descriptor,),
            )
        self.on_event(
            ResourceEvent(
                kind="done" if done.code in {0, 2} else "failed",
                address="",
                action=name,
                seconds=round(done.seconds, 3),
                message=f"terraform {name}",
            )
        )
        return done

    @contextmanager
    def _lock_noted(self, wanted: bool) -> Iterator[Callable[[], None]]:
        """Report the state lock that the command takes, as soon as the bucket shows it."""
        if not wanted:
            yield lambda: None
            return
        with LockWatch(self._read_lock) as watch:

            def on_tick() -> None:
                lock = watch.poll()
                if lock is not None:
                    self.on_event(ResourceEvent("lock_taken", lock.id, "lock", None, f"locked by {lock.who}"))

            yield on_tick

    def _write_imports(self, adopt: Mapping[str, str]) -> None:
        self._adopt.unlink(missing_ok=True)
        if adopt:
            blocks = [{"to": address, "id": _literal(import_id)} for address, import_id in adopt.items()]
            _write(self._adopt, {"import": blocks})


def _literal(text: str) -> str:
    """JSON configuration is a template language too: keep a value from being evaluated."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(value))
