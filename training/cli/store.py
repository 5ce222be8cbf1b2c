"""``python -m training list | show | activate | verify``: inspects the model store and switches versions."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected, InferenceError, UnknownModel
from training.cli.card import all_rows, size_of, table_of
from training.cli.parser import PROGRAM, add_store_command, add_trusted_keys, command_line, console, store_of
from training.errors import TrainingError

if TYPE_CHECKING:
    from app.command_line import Commands

_CURRENT_MARK: Final = "●"
_UNBOUNDED: Final = 1000


@dataclass(frozen=True)
class Version:
    """One version in the store.

    Attributes:
        name: of the model.
        version: of the model.
        current: whether CURRENT names it.
        manifest: None if it failed verification.
        refusal: the reason; None if it passed.
    """

    name: str
    version: str
    current: bool
    manifest: Manifest | None
    refusal: str | None


def add_to(commands: "Commands") -> None:
    """Adds the commands."""
    add_store_command(
        commands,
        "list",
        [],
        summary="all models and versions, with figures",
        description="Shows all models and their versions, newest first.",
        run=list_all,
        add_options=_add_json,
    )
    add_store_command(
        commands,
        "show",
        ["NAME", "[VERSION]"],
        summary="one version in full",
        description="Shows one version, by default the current one.",
        run=show,
        add_options=_add_json,
    )
    add_store_command(
        commands,
        "activate",
        ["NAME", "VERSION"],
        summary="make a version current, for example to roll back",
        description="Verifies a version and makes it the current one: a rollback, or undoing one.\n"
        "A running service switches within about a second.",
        run=activate,
        add_options=add_trusted_keys,
    )
    add_store_command(
        commands,
        "verify",
        ["[NAME]", "[VERSION]"],
        summary="check that all files are as published",
        description="Checks each version as a service does before loading it: the signature, if\n"
        "keys are given, the manifest's seal, the SHA-256 of every file, and the model's\n"
        "output for its golden image. Exit status 1 if any check fails.",
        run=verify,
        add_options=add_trusted_keys,
    )


def _add_json(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="print JSON")


def list_all(options: argparse.Namespace) -> None:
    """Shows all versions of all models."""
    store = store_of(options)
    found = [
        _read(store, name, version) for name, versions in store.contents().items() for version in reversed(versions)
    ]
    if options.json:
        _print_json([_summary(each) for each in found])
    elif found:
        refusals = [each.refusal for each in found] + [_current_or_reason(store, name)[1] for name in store.contents()]
        _print_list(console(), found, [refusal for refusal in refusals if refusal])
    else:
        print(f"{store.root} has no models yet; see {PROGRAM} --help")


def show(options: argparse.Namespace) -> None:
    """Shows one version.

    Raises:
        InferenceError: it does not exist, or its manifest failed verification.
    """
    store = store_of(options)
    shown = _read(store, options.name, options.version or store.current(options.name))
    if shown.manifest is None:
        raise BundleRejected(shown.refusal)
    if options.json:
        _print_json({"current": shown.current, **_card(shown.manifest)})
        return
    out = console()
    state = "[green]current[/]" if shown.current else "[yellow]not current[/]"
    out.print(f"[bold]{shown.name} {shown.version}[/]  {state}\n", soft_wrap=True)
    out.print(table_of(all_rows(shown.manifest)))
    out.print(f"\n[cyan]files[/]  {escape(str(store.root / shown.name / shown.version))}", soft_wrap=True)


def activate(options: argparse.Namespace) -> None:
    """Makes a version current.

    Raises:
        InferenceError: it does not exist, or it failed verification.
    """
    store, name, version = store_of(options), options.name, options.version
    before = _current(store, name)
    store.activate(name, version)
    if before == version:
        print(f"{name} {version} is already current")
        return
    print(f"{name} {version} is current")
    if before:
        print(f"undo: {command_line('activate', name, before, store=store.root)}")


def verify(options: argparse.Namespace) -> None:
    """Verifies the store, one model or one version.

    Raises:
        TrainingError: a check failed.
    """
    store = store_of(options)
    selected = {options.name: store.versions(options.name)} if options.name else store.contents()
    if options.version:
        selected = {options.name: [options.version]}
    out = console()
    refusals = []
    for name, versions in selected.items():
        current, refusal = _current_or_reason(store, name)
        failed = [] if options.version or refusal is None else [refusal]
        for version in versions:
            try:
                store.load(name, version)
            except BundleRejected as error:
                failed.append(str(error))
                continue
            mark = f" {_CURRENT_MARK}" if version == current else ""
            out.print(f"[green]OK[/]       {name}/{version}{mark}", soft_wrap=True)
        for line in failed:
            out.print(f"[bold red]REFUSED[/]  {escape(line)}", soft_wrap=True)
        refusals += failed
    if refusals:
        checks = "1 check" if len(refusals) == 1 else f"{len(refusals)} checks"
        raise TrainingError(f"{checks} of {store.root} failed, see above")
    if not selected:
        print(f"{store.root} has no models")


def _current(store: ModelStore, name: str) -> str | None:
    return _current_or_reason(store, name)[0]


def _current_or_reason(store: ModelStore, name: str) -> tuple[str | None, str | None]:
    try:
        return store.current(name), None
    except UnknownModel:
        return None, f"{name}/CURRENT is missing: no version is served"
    except InferenceError as error:
        return None, str(error)


def _read(store: ModelStore, name: str, version: str) -> Version:
    current = _current(store, name) == version
    try:
        return Version(name, version, current, store.manifest(name, version), None)
    except BundleRejected as error:
        return Version(name, version, current, None, str(error))


def _summary(each: Version) -> dict[str, Any]:
    identity = {"name": each.name, "version": each.version, "current": each.current}
    if each.manifest is None:
        return {**identity, "refused": each.refusal}
    manifest = each.manifest
    return {
        **identity,
        "created_at": manifest.model_dump(mode="json")["created_at"],
        "recipe": manifest.training.recipe.get("name"),
        "rule": manifest.scoring.rule,
        "threshold": manifest.threshold,
        "false_alarm_rate": manifest.false_alarm_rate,
        "guarantee": manifest.guarantee,
        "auroc": manifest.evaluation and manifest.evaluation.auroc,
        "bytes": sum(record.bytes for record in manifest.files.values()),
    }


def _card(manifest: Manifest) -> dict[str, Any]:
    """The manifest without its large fields: scores, image indices and the golden image."""
    card = manifest.model_dump(
        mode="json", exclude={"calibration": {"scores", "groups"}, "training": {"split"}, "golden": {"image"}}
    )
    card["calibration"]["groups"] = manifest.calibration.effective_size
    return card


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _print_list(out: Console, found: Sequence[Version], refusals: Sequence[str]) -> None:
    """One line per version, or two on narrow terminals."""
    wide = _list_table(found, stacked=False)
    fits = out.measure(wide, options=out.options.update(max_width=_UNBOUNDED)).maximum <= out.width
    out.print(wide if fits else _list_table(found, stacked=True))
    if refusals:
        out.print("")
    for refusal in refusals:
        out.print(f"[bold red]REFUSED[/]  {escape(refusal)}", soft_wrap=True)


# Pairs of columns; on narrow terminals, each pair is one column with two lines.
_COLUMNS: Final = (("model", "version"), ("created", "size"), ("recipe", "rule"), ("threshold", "α"), ("AUROC", ""))
_NUMBERS: Final = _COLUMNS[3:]


def _list_table(found: Sequence[Version], *, stacked: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for pair in _COLUMNS:
        for header in ["\n".join(pair)] if stacked else filter(None, pair):
            table.add_column(header, overflow="fold", justify="right" if pair in _NUMBERS else "left")
    for each in found:
        pairs = _cells(each)
        table.add_row(*(["\n".join(pair) for pair in pairs] if stacked else [cell for pair in pairs for cell in pair]))
    return table


def _cells(each: Version) -> list[tuple[str, ...]]:
    """The cells of a version, in the pairs of ``_COLUMNS``."""
    mark = f" [green]{_CURRENT_MARK}[/]" if each.current else ""
    name_and_version = (f"[bold]{each.name}[/]{mark}", each.version)
    if each.manifest is None:
        return [name_and_version, ("[bold red]REFUSED[/]", "")]
    manifest, evaluation = each.manifest, each.manifest.evaluation
    return [
        name_and_version,
        (f"{manifest.created_at:%Y-%m-%d %H:%M}", size_of(manifest)),
        (escape(str(manifest.training.recipe.get("name", ""))), escape(manifest.scoring.rule)),
        (f"{manifest.threshold:.6g}", f"{manifest.false_alarm_rate:.4g}"),
        ("–" if evaluation is None or evaluation.auroc is None else f"{evaluation.auroc:.4f}",),
    ]
