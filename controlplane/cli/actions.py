"""The commands of `controlplane tenants`, `clusters` and `fleet` that act, made from the actions."""

from __future__ import annotations

import types
from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from controlplane.actions import ACTIONS
from controlplane.actions.action import Action, Subject
from controlplane.cli import options, purges, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Failure
from controlplane.cli.requested import decided, preview, requested
from controlplane.cli.watching import await_end

PREVIEW_TIMEOUT = 60.0
"""Seconds that a dry run waits unless `--timeout` says how long: it says meanwhile what it waits for."""


def commands(subject: Subject) -> list[click.Command]:
    return [_command(action) for (of, _), action in ACTIONS.items() if of is subject]


def _command(action: Action[Any]) -> click.Command:
    reason = click.option(
        "--reason", default="asked for by hand", show_default=True, help="For the audit trail."
    )
    dry = click.option("--dry-run", is_flag=True, help="Show what it would do; change nothing.")
    wait = click.option("--wait", is_flag=True, help="Watch it; its outcome is the exit status.")

    def callback(*, reason: str, as_json: bool, subject: str = "", **given: Any) -> None:
        dry_run, wait = given.pop("dry_run", False), given.pop("wait", False)
        timeout = given.pop("timeout", None)
        if dry_run and wait:
            raise click.UsageError("--dry-run changes nothing: leave --wait out")
        api = Api.from_environment()
        params = {name: value for name, value in given.items() if value is not None}
        name = "" if action.subject is Subject.FLEET else in_path(action.subject, subject)
        answer = api.post(
            action.path(name), {**params, "reason": reason, **({"dry_run": True} if dry_run else {})}
        )
        patience = timeout or (PREVIEW_TIMEOUT if dry_run else action.patience)
        _shown(api, answer, wait=wait, timeout=patience, as_json=as_json)

    made: Any = callback
    waits = [_timeout(action), wait] if action.patience else []
    for decorate in (options.as_json, *waits, *([dry] if action.preview else []), reason):
        made = decorate(made)
    for name, field in reversed(action.params.model_fields.items()):
        made = _option(name, field)(made)
    if action.subject is not Subject.FLEET:
        made = click.argument("subject", metavar=action.subject.upper())(made)
    approved_by = action.second_person(action.params.model_construct())
    about = action.summary + (f" Somebody else approves it with `{approved_by}`." if approved_by else "")
    if action.subject is Subject.TENANT:
        about += " TENANT is its id in full, t-…." if action.full_id else " TENANT is its id or slug."
    return click.command(action.name, help=about)(made)


def _timeout(action: Action[Any]) -> Any:
    about = f"Seconds to wait at most.  [default: {action.patience:g}" + (
        f", {PREVIEW_TIMEOUT:g} for a dry run]" if action.preview else "]"
    )
    return click.option("--timeout", type=click.FloatRange(1, 86_400), default=None, help=about)


def _option(name: str, field: FieldInfo) -> Any:
    kinds = [kind for kind in get_args(field.annotation) if kind is not types.NoneType] or [field.annotation]
    flag = f"--{name.replace('_', '-')}"
    if kinds == [bool]:
        return click.option(flag, name, is_flag=True, help=field.description)
    extra = field.json_schema_extra
    metavar = str(extra["metavar"]) if isinstance(extra, dict) and "metavar" in extra else None
    bounds = {
        key: getattr(found, key) for found in field.metadata for key in ("ge", "le") if hasattr(found, key)
    }
    return click.option(
        flag,
        name,
        type=click.IntRange(bounds.get("ge"), bounds.get("le")) if kinds == [int] else str,
        **({"required": True} if field.is_required() else {"default": field.default}),
        show_default=not field.is_required() and field.default is not None,
        metavar=metavar,
        help=field.description,
    )


def _shown(api: Api, answer: Json, *, wait: bool, timeout: float, as_json: bool) -> None:
    if "preview" in answer:
        preview(api, answer["preview"]["id"], timeout=timeout, as_json=as_json)
    elif "plan" in answer:
        show.as_json(answer["plan"]) if as_json else show.pairs(answer["plan"].items())
    elif "export" in answer:
        _export(api, answer["export"], wait=wait, timeout=timeout, as_json=as_json)
    elif "operation" in answer:
        requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)
    elif "recorded" in answer and wait:
        decided(api, answer["recorded"]["tenant"], timeout=timeout, as_json=as_json)
    elif "recorded" in answer:
        show.as_json(answer["recorded"]) if as_json else show.pairs(answer["recorded"].items())
    elif "freeze" in answer:
        show.as_json(answer["freeze"]) if as_json else show.line(show.freeze(answer["freeze"]))
    elif as_json:
        show.as_json(answer["purge"])
    else:
        purges.print_purge(answer["purge"])


def _export(api: Api, made: Json, *, wait: bool, timeout: float, as_json: bool) -> None:
    if wait:
        made = await_end(
            api,
            f"/v1/exports/{made['id']}",
            busy=lambda observed: observed["state"] == "making",
            timeout=timeout,
            late=lambda observed: f"export {observed['id']} is not made after {timeout:g} s",
        )
    if as_json:
        show.as_json(made)
    else:
        tables = made["tables"] or {}
        show.pairs(
            [
                ("export", made["id"]),
                ("state", made["state"]),
                ("object", made["name"]),
                ("SHA-256", made["sha256"]),
                ("bytes", made["size"]),
                ("rows", ", ".join(f"{name} {rows}" for name, rows in tables.items())),
                ("kept until", made["kept_until"] and show.moment(made["kept_until"])),
            ]
        )
    if made["state"] == "failed":
        raise Failure(f"export {made['id']}: {made['error']}")
