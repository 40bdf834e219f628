"""`gc`: take away environments that nobody needs any more."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.state import PATH, as_json, common, load, settings_options
from pytest_multihost_env.names import size_of

if TYPE_CHECKING:
    from pytest_multihost_env.provision.garbage import Item

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _age(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float:
    """Return a span of time as people write it (`30m`, `12h`, `7d`) in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", (value or "0s").strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no age; write a number and one of s, m, h, d, w, as in 7d")
    return float(match[1]) * _UNITS[match[2]]


@click.command()
@click.argument("target", required=False, type=PATH)
@click.option("--keep", type=click.IntRange(min=0), default=1, metavar="N", help="Keep the newest N; default 1.")
@click.option("--older-than", callback=_age, metavar="AGE", help="Remove only what is older, as in 7d.")
@click.option("--replaced", is_flag=True, help="Also remove what `provision --force` has put aside.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and remove nothing.")
@settings_options("group", "owners")
@as_json
@common
def gc(
    target: Path | None, *, keep: int, older_than: float, replaced: bool, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Remove the environments made for TARGET that nobody needs any more, and what dead builders left.

    The newest one stays, and the one that TARGET leads to, and whichever a running job uses, on any host.  TARGET
    defaults to the setting `target` (./python_env).  The exit code is 1 when something could not be removed.
    """
    from pytest_multihost_env.provision import Wish, collect, trust_of
    from pytest_multihost_env.provision.garbage import total

    settings = load(given)
    wish = Wish(keep=keep, older_than=older_than, replaced=replaced, dry_run=dry_run, trust=trust_of(settings))
    where = (Path.cwd() / target) if target else settings.target
    items = collect(where, wish)
    if as_json:
        rows = [{**dataclasses.asdict(item), "left": list(item.left)} for item in items]
        output.json({"target": where, "dry_run": dry_run, "freed": total(items), "items": rows})
    else:
        output.result(_text(items, where, dry_run=dry_run))
    return 1 if any(item.left for item in items) else 0


def _text(items: list[Item], target: Path, *, dry_run: bool) -> str:
    from pytest_multihost_env.provision.garbage import total
    from pytest_multihost_env.table import Table, render

    if not items:
        return f"nothing of what was made for {target} is there any more"
    home = target.with_name(f".{target.name}.d")
    rows = tuple(
        (item.what, _short(item, home), _fate(item, dry_run=dry_run), _why(item), _bytes(item)) for item in items
    )
    gone = sum(not item.kept for item in items)
    fate = "would go" if dry_run else "removed"
    caption = f"{gone} of {len(items)} {fate}, {size_of(total(items))}; all of it in {home}"
    return render(Table(("what", "where", "", "why", "freed"), rows, caption), output.look())


def _short(item: Item, home: Path) -> str:
    """Return where the item is; of an environment the slot is enough, which holds one only."""
    path = Path(os.path.relpath(item.path, home))
    return str(path.parents[1]) if path.parent.name == "att" and item.what == "environment" else str(path)


def _fate(item: Item, *, dry_run: bool) -> str:
    if item.kept:
        return "kept"
    return "would go" if dry_run else "removed"


def _why(item: Item) -> str:
    if item.kept or not item.left:
        return item.why
    return f"{item.why}; {len(item.left)} files are still in use or another's ({item.left[0].name}): run gc again"


def _bytes(item: Item) -> str:
    return "" if item.kept else size_of(item.size)
