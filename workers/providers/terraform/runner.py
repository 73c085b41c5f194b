"""`ports.Terraform` on the real thing.

One apply is: take the stack's initialised version of the release that the run names, open a folder, recover,
then plan → show → guard → apply. A plan that changes nothing ends there, with the outputs read from the
state: one terraform process. New placements cost three (plan, show, apply), however many they are.

A cluster that does not exist yet is made in two applies. Terraform persists an intermediate state at
most every 20 seconds and only when something changes, so in one apply the key, made in the first
seconds, would stay out of the saved state through the minutes that the cluster takes (measured: with a
SIGKILL after 26 s the saved state is empty, whatever TF_STATE_PERSIST_INTERVAL says). The first apply
makes what takes seconds and is saved when it ends; a run killed in the long wait of the second then
loses nothing but the cluster's own entry, and that is found again by name.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.workers.providers.ports import Found, PlannedChange, Publication, ResourceEvent, StackRun
from controlplane.workers.providers.terraform import archive, diagnostics, folder, guard, process, strays
from controlplane.workers.providers.terraform.commands import Commands
from controlplane.workers.providers.terraform.installation import Installation, Installations
from controlplane.workers.providers.terraform.inventory import (
    AwsAccount,
    ClusterInventory,
    Inventory,
    PlacementsInventory,
    inventory_of,
)
from controlplane.workers.providers.terraform.recovery import Ground, Recovery
from controlplane.workers.providers.terraform.session import SHORT_TIMEOUT, Session
from controlplane.workers.providers.terraform.state import StateBucket

INIT_TIMEOUT = 900.0  # seconds: the provider is 700 MB from the public registry
_PASSED_ON = frozenset(
    {
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "PATH",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "TF_CLI_CONFIG_FILE",
        "TF_PLUGIN_CACHE_DIR",
    }
    | {name for proxy in ("http_proxy", "https_proxy", "no_proxy") for name in (proxy, proxy.upper())}
)
# What may outlive the cluster: its final snapshot can be restored only while the key exists.
_OUTLIVES = frozenset({ClusterInventory.key, ClusterInventory.alias})

OnEvent = Callable[[ResourceEvent], None]
Stopped = Callable[[], bool]


class TerraformRunner:
    def __init__(
        self,
        *,
        binary: str,
        stacks_dir: Path,
        work_dir: Path,
        state_bucket: str,
        region: str,
        environment: Mapping[str, str],
    ) -> None:
        """`stacks_dir`: the folder `terraform/stacks`, with `modules` beside it, that this installation
        carries. `work_dir`: a local folder of this machine, shared by its workers. `environment`: the
        process's own; terraform gets AWS's variables and a few more of it, nothing else. Raises Refused
        where the stacks are not whole."""
        self._carried = archive.pack(Path(stacks_dir).absolute().parent)
        self._binary = binary
        self._work_dir = Path(work_dir).absolute()
        self._region = region
        self._environment = {
            name: value
            for name, value in environment.items()
            if name in _PASSED_ON or (name.startswith("AWS_") and value)
        } | {
            "AWS_REGION": region,
            "CHECKPOINT_DISABLE": "1",
            # Each command loads the provider's schemas anew, which is mostly Go's collector at work: a run
            # for two secrets took 9.3 CPU s, and 7.7 with this, for a tenth more memory.
            "GOGC": "400",
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
        }
        self._backend = {"bucket": state_bucket, "region": region}
        if any(name.startswith("AWS_ENDPOINT_URL") for name in self._environment):
            self._backend["use_path_style"] = "true"  # an endpoint of one's own has no host for each bucket
        self._bucket = StateBucket(state_bucket, region=region)
        self._account = AwsAccount(region)
        cache = self._environment.get("TF_PLUGIN_CACHE_DIR")
        self._installations = Installations(
            self._work_dir,
            read=self._archive,
            inputs=self._backend | {"config": self._environment.get("TF_CLI_CONFIG_FILE", "")},
            init_lock=Path(cache or self._work_dir) / "init.lock",
        )

    def prepare(self, release: str) -> None:
        """Initialise the stacks of this one where they are not yet, so that the first run need not."""

        def initialise(path: Path, data: Path) -> None:
            self._initialise(path, data, lambda: False, lambda _event: None)

        for stack in archive.STACKS:
            with _disk_errors(), self._installations.use(stack, release, initialise):
                continue

    # ------------------------------------------------------------------------- ports.Terraform

    def publish(self, *, dry_run: bool = False) -> Publication:
        digest, body = self._carried.digest, self._carried.body
        key = archive.key_of(digest)
        found = self._found(key, digest)
        if found is Found.ABSENT and not dry_run and not self._bucket.write(key, body):
            found = self._found(key, digest)  # somebody else was faster
        if found is Found.DAMAGED and not dry_run:
            self._bucket.write(key, body, over=True)
        return Publication(digest, self._carried.variables, self._bucket.place(key), len(body), found)

    def apply(self, run: StackRun, *, on_event: OnEvent, stopped: Stopped) -> dict[str, Any]:
        inventory = inventory_of(run.stack, self._account, run.variables)
        with self._session(run, on_event, stopped) as session:
            ground = self._repair(run, session, inventory, restore=True)
            self._take_up(run, session, ground.lost)
            outputs = self._converge(run, session, inventory, ground)
            if isinstance(inventory, ClusterInventory) and run.prior_runs:
                strays.clear(run, self._account, on_event)
        self._wipe_leftovers(run)
        return outputs

    def plan(self, run: StackRun) -> list[PlannedChange]:
        """What is tainted shows as an update: `apply` untaints it before it plans."""
        inventory = inventory_of(run.stack, self._account, run.variables)
        with self._session(run, lambda _event: None, lambda: False) as session:
            ground = Recovery(run, session, self._bucket, inventory).observe()
            shown = session.show() if session.plan(run.variables, adopt=ground.adopt) else {}
        tainted = guard.tainted(shown)
        changes = [
            PlannedChange(change.address, "update", destructive=False)
            if change.address in tainted
            else change
            for change in guard.changes_of(shown)
        ]
        return changes + [PlannedChange(address, "delete", destructive=True) for address in ground.lost]

    def destroy(self, run: StackRun, *, on_event: OnEvent, stopped: Stopped) -> None:
        """First brings a cluster to `run.variables` (that is how deletion protection goes off and the
        final snapshot gets its name: Terraform deletes with the *state's* settings) and adopts what the
        state does not know, then deletes. What only the state knows, and exists, is to be approved like
        all else.

        A cluster's key and its alias stay, and the workspace with them, unless `run.approved` names
        them: without the key the final snapshot can't be restored. Call again, with both approved,
        once the snapshot is gone.
        """
        inventory = inventory_of(run.stack, self._account, run.variables)
        with self._session(run, on_event, stopped) as session:
            ground = self._repair(run, session, inventory, restore=False)
            existing = [address for address in inventory.addresses() if ground.has(address)]
            left = [address for address in ground.state.resources if address not in existing]
            existing += [*inventory.find(left), *ground.lost]
            kept = [address for address in existing if address in _OUTLIVES and address not in run.approved]
            doomed = [address for address in existing if address not in kept]
            # Before anything changes: a refused purge must not leave the cluster unprotected.
            guard.check([PlannedChange(address, "delete", True) for address in doomed], run.approved)
            if doomed:
                if isinstance(inventory, ClusterInventory):
                    self._pass(run, session, adopt=ground.adopt, targets=existing)
                else:
                    self._take_up(run, session, {**ground.adopt, **ground.lost})
            if doomed or (left and not kept):
                self._pass(run, session, targets=doomed if kept else (), destroy=True)
            if not kept and self._bucket.exists(run.stack, run.workspace):
                session.delete_workspace()
        self._wipe_leftovers(run)

    def version(self) -> str:
        with _disk_errors(), tempfile.TemporaryDirectory(prefix="terraform-version-") as path:
            done = process.run(
                self._commands.show_version(),
                folder=Path(path),
                name="version",
                environment=self._environment,
                timeout=SHORT_TIMEOUT,
            )
            if done.code != 0:
                raise diagnostics.failure("version", done.code, diagnostics.of_stderr(done.errors))
            return str(json.loads(done.text())["terraform_version"])

    # --------------------------------------------------------------------------------- the parts

    def _found(self, key: str, digest: str) -> Found:
        body = self._bucket.read(key)
        if body is None:
            return Found.ABSENT
        return Found.PRESENT if archive.digest_of(body) == digest else Found.DAMAGED

    def _archive(self, stack: str, release: str) -> bytes:
        key = archive.key_of(release)
        body = self._bucket.read(key)
        if body is not None and archive.digest_of(body) == release:
            return body
        wrong = "is missing" if body is None else f"is damaged (SHA-256 {archive.digest_of(body)})"
        raise NeedsHuman(
            f"release {release} of the stacks, to run {stack!r} with, {wrong}: expected it at"
            f" {self._bucket.place(key)}",
            runbook=archive.RUNBOOK,
        )

    @cached_property
    def _commands(self) -> Commands:
        found = shutil.which(self._binary, path=self._environment.get("PATH"))
        if found is None:
            raise NeedsHuman(
                f"there is no terraform binary {self._binary!r} on PATH", runbook="terraform-configuration"
            )
        return Commands(os.path.abspath(found))

    @contextmanager
    def _session(self, run: StackRun, on_event: OnEvent, stopped: Stopped) -> Iterator[Session]:
        def initialise(path: Path, data: Path) -> None:
            self._initialise(path, data, stopped, on_event)

        with _disk_errors(), self._installations.use(run.stack, run.release, initialise) as version:
            self._installations.tidy(run.stack)
            if any(folder.is_alive(path) for path in self._installations.runs_of(run.stack, run.workspace)):
                raise Retryable(f"an earlier terraform on {run.workspace} is still at work", after=5)
            with folder.open_folder(version.runs, run.workspace, version.root) as own:
                yield self._open(run, version, own, on_event, stopped)

    def _open(
        self,
        run: StackRun,
        version: Installation,
        own: folder.RunFolder,
        on_event: OnEvent,
        stopped: Stopped,
    ) -> Session:
        return Session(
            self._commands,
            own,
            run.workspace,
            environment=self._environment | {"TF_DATA_DIR": str(version.data)},
            read_lock=lambda: self._bucket.lock(run.stack, run.workspace),
            on_event=on_event,
            stopped=stopped,
        )

    def _initialise(self, path: Path, data: Path, stopped: Stopped, on_event: OnEvent) -> None:
        done = process.run(
            self._commands.initialise(self._backend),
            folder=path,
            name="init",
            environment=self._environment | {"TF_DATA_DIR": str(data)},
            timeout=INIT_TIMEOUT,
            stopped=stopped,
        )
        if done.code != 0:
            raise diagnostics.failure("init", done.code, diagnostics.of_stderr(done.errors))
        for left in path.glob("init.*"):  # the runs' folders link to what is in this one
            left.unlink()
        on_event(ResourceEvent("done", "", "init", round(done.seconds, 3), "terraform init"))

    def _repair(self, run: StackRun, session: Session, inventory: Inventory, *, restore: bool) -> Ground:
        errored = [
            path / folder.ERRORED
            for path in self._installations.runs_of(run.stack, run.workspace)
            if (path / folder.ERRORED).exists()
        ]
        return Recovery(run, session, self._bucket, inventory).repair(errored, restore=restore)

    def _take_up(self, run: StackRun, session: Session, adopt: Mapping[str, str]) -> None:
        """Bring what is to go into the state, as it is deleted from there. It is no part of what should be,
        so the variables of this pass name its placements alone, and its targets nothing else."""
        if adopt:
            known = filter(None, map(PlacementsInventory.secret_at, adopt))
            placements = sorted({placement for placement, _name in known})
            only = replace(run, variables={**run.variables, "placements": placements})
            self._pass(only, session, adopt=adopt, targets=list(adopt))

    def _converge(
        self, run: StackRun, session: Session, inventory: Inventory, ground: Ground
    ) -> dict[str, Any]:
        adopt = dict(ground.adopt)
        if isinstance(inventory, ClusterInventory) and not ground.has(inventory.cluster):
            foundation = inventory.foundation
            if not all(address in ground.state.resources for address in foundation):
                first = {address: adopt.pop(address) for address in foundation if address in adopt}
                self._pass(run, session, adopt=first, targets=foundation)
        outputs = self._pass(run, session, adopt=adopt)
        if outputs is None:
            state = self._bucket.state(run.stack, run.workspace)
            outputs = {} if state is None else dict(state.outputs)
        return outputs

    def _pass(
        self,
        run: StackRun,
        session: Session,
        *,
        adopt: Mapping[str, str] | None = None,
        targets: Sequence[str] = (),
        destroy: bool = False,
    ) -> dict[str, Any] | None:
        """Plan, show, guard, apply; None where there was nothing to change."""
        if not session.plan(run.variables, adopt=adopt, targets=targets, destroy=destroy):
            return None
        changes = guard.changes_of(session.show())
        guard.check(changes, run.approved)
        outputs = session.apply()
        for change in changes:
            if change.action == "import":
                session.on_event(
                    ResourceEvent("adopted", change.address, "import", None, "found by name and adopted")
                )
        return outputs

    def _wipe_leftovers(self, run: StackRun) -> None:
        """The state is saved: what earlier runs on this workspace left has been taken up."""
        for path in self._installations.runs_of(run.stack, run.workspace):
            if not folder.is_alive(path):
                folder.wipe(path)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """A full or unwritable work folder ends in an error of ours."""
    try:
        yield
    except OSError as error:
        raise Retryable(f"terraform's work folder: {error.strerror or type(error).__name__}") from error
