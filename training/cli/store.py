"""``python -m training list | show | activate | verify``: the store from the outside."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected, InferenceError, UnknownModel
from training.card import all_rows, size_of, table_of
from training.cli.parser import PROGRAM, command, console
from training.cli.store_parser import StoreParser, store_of
from training.errors import TrainingError

_CURRENT_MARK: Final = "●"
_UNBOUNDED: Final = 1000


@dataclass(frozen=True)
class Version:
    """One version as it lies in the store.

    Attributes:
        name: its model.
        version: its name.
        current: whether CURRENT names it.
        manifest: its card; None where that is refused.
        refusal: why.
    """

    name: str
    version: str
    current: bool
    manifest: Manifest | None
    refusal: str | None


def list_all(arguments: list[str]) -> None:
    """Shows the whole store."""
    parser = StoreParser("list", [], "Shows every model and version, newest first.")
    _add_json(parser)
    options = parser.read(arguments)
    store = store_of(options)
    found = [
        _read(store, name, version) for name, versions in store.contents().items() for version in reversed(versions)
    ]
    if options.json:
        _print_json([_summary(each) for each in found])
    elif found:
        refusals = [each.refusal for each in found] + [_current_or_why(store, name)[1] for name in store.contents()]
        _print_list(console(), found, [refusal for refusal in refusals if refusal])
    else:
        print(f"{store.root} holds no models yet; {PROGRAM} --help says how to make one")


def show(arguments: list[str]) -> None:
    """Shows one version.

    Raises:
        InferenceError: there is no such version, or its card is broken.
    """
    parser = StoreParser("show", ["NAME", "[VERSION]"], "Shows one version, by default the current one.")
    _add_json(parser)
    options = parser.read(arguments)
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


def activate(arguments: list[str]) -> None:
    """Makes a version current.

    Raises:
        InferenceError: there is no such version, or it is broken.
    """
    parser = StoreParser(
        "activate",
        ["NAME", "VERSION"],
        "Verifies a version and makes it the one that is served: a rollback, or its\n"
        "undoing. A running service follows within about a second.",
    )
    parser.add_trusted_keys()
    options = parser.read(arguments)
    store, name, version = store_of(options), options.name, options.version
    before = _current(store, name)
    store.activate(name, version)
    if before == version:
        print(f"{name} {version} is current, as it was")
        return
    print(f"{name} {version} is current")
    if before:
        print(f"undo: {command('activate', name, before, store=store.root)}")


def verify(arguments: list[str]) -> None:
    """Checks the store.

    Raises:
        TrainingError: something is broken.
    """
    parser = StoreParser(
        "verify",
        ["[NAME]", "[VERSION]"],
        "Checks each version as a service does before it serves it: the signature, if\n"
        "keys are given, the manifest's seal, the SHA-256 of every file, and what the\n"
        "model answers to probe images. Ends with status 1 if anything is broken.",
    )
    parser.add_trusted_keys()
    options = parser.read(arguments)
    store = store_of(options)
    chosen = {options.name: store.versions(options.name)} if options.name else store.contents()
    if options.version:
        chosen = {options.name: [options.version]}
    out = console()
    refusals = []
    for name, versions in chosen.items():
        current, refusal = _current_or_why(store, name)
        found = [] if options.version or refusal is None else [refusal]
        for version in versions:
            try:
                store.load(name, version)
            except BundleRejected as error:
                found.append(str(error))
                continue
            out.print(f"[green]OK[/]       {name}/{version}{' ' + _CURRENT_MARK if version == current else ''}",
                      soft_wrap=True)  # fmt: skip
        for line in found:
            out.print(f"[bold red]REFUSED[/]  {escape(line)}", soft_wrap=True)
        refusals += found
    if refusals:
        places = "1 place" if len(refusals) == 1 else f"{len(refusals)} places"
        raise TrainingError(f"{store.root} is broken in {places}, see above")
    if not chosen:
        print(f"{store.root} holds no models")


def _add_json(parser: StoreParser) -> None:
    parser.how.add_argument("--json", action="store_true", help="for programs")


def _current(store: ModelStore, name: str) -> str | None:
    return _current_or_why(store, name)[0]


def _current_or_why(store: ModelStore, name: str) -> tuple[str | None, str | None]:
    try:
        return store.current(name), None
    except UnknownModel:
        return None, f"{name}/CURRENT is missing: none of its versions is served"
    except InferenceError as error:
        return None, str(error)


def _read(store: ModelStore, name: str, version: str) -> Version:
    current = _current(store, name) == version
    try:
        return Version(name, version, current, store.manifest(name, version), None)
    except BundleRejected as error:
        return Version(name, version, current, None, str(error))


def _summary(each: Version) -> dict[str, Any]:
    place = {"name": each.name, "version": each.version, "current": each.current}
    if each.manifest is None:
        return {**place, "refused": each.refusal}
    manifest = each.manifest
    return {
        **place,
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
    """The manifest without its bulk: single scores, indices of images, the golden image."""
    return manifest.model_dump(
        mode="json", exclude={"calibration": {"scores"}, "training": {"split"}, "golden": {"image"}}
    )


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _print_list(out: Console, found: Sequence[Version], refusals: Sequence[str]) -> None:
    """One line per version where the window is wide enough, else two."""
    wide = _list_table(found, stacked=False)
    fits = out.measure(wide, options=out.options.update(max_width=_UNBOUNDED)).maximum <= out.width
    out.print(wide if fits else _list_table(found, stacked=True))
    if refusals:
        out.print("")
    for refusal in refusals:
        out.print(f"[bold red]REFUSED[/]  {escape(refusal)}", soft_wrap=True)


# What stands above what where lines are short.
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
    """The cells of a version, paired as ``_COLUMNS`` are."""
    mark = f" [green]{_CURRENT_MARK}[/]" if each.current else ""
    place = (f"[bold]{each.name}[/]{mark}", each.version)
    if each.manifest is None:
        return [place, ("[bold red]REFUSED[/]", "")]
    manifest, evaluation = each.manifest, each.manifest.evaluation
    return [
        place,
        (f"{manifest.created_at:%Y-%m-%d %H:%M}", size_of(manifest)),
        (escape(str(manifest.training.recipe.get("name", ""))), escape(manifest.scoring.rule)),
        (f"{manifest.threshold:.6g}", f"{manifest.false_alarm_rate:.4g}"),
        ("–" if evaluation is None or evaluation.auroc is None else f"{evaluation.auroc:.4f}",),
    ]
