"""``python -m training list | show | activate | verify``: the store from the outside."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.inference.errors import BundleRejected, InferenceError, UnknownModel, UnknownVersion
from app.inference.manifest import Manifest
from app.inference.store import ModelStore
from training.card import all_rows, size_of, table_of
from training.command_line import PROGRAM, STORE, Parser, add_help, command, console, did_you_mean
from training.errors import TrainingError

_CURRENT_MARK: Final = "●"
_UNBOUNDED: Final = 1000
_ARGUMENTS: Final = {"NAME": "a model", "VERSION": "one of its versions"}


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


def run(word: str, arguments: list[str]) -> int:
    """Does one of the commands; returns the exit status.

    Raises:
        TrainingError, InferenceError: it cannot be done, or something is broken; the text says what.
    """
    commands = {"list": _list, "show": _show, "activate": _activate, "verify": _verify}
    commands[word](arguments)
    return 0


def _list(arguments: list[str]) -> None:
    store, options = _parse("list", [], "Shows every model and version, newest first.", arguments, as_json=True)
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


def _show(arguments: list[str]) -> None:
    store, options = _parse("show", ["NAME", "[VERSION]"], "Shows one version, by default the current one.", arguments,
                            as_json=True)  # fmt: skip
    _check_known(store, options.name, options.version)
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


def _activate(arguments: list[str]) -> None:
    store, options = _parse(
        "activate",
        ["NAME", "VERSION"],
        "Verifies a version and makes it the one that is served: a rollback, or its\n"
        "undoing. A running service follows within about a second.",
        arguments,
    )
    name, version = options.name, options.version
    _check_known(store, name, version)
    before = _current(store, name)
    store.activate(name, version)
    if before == version:
        print(f"{name} {version} is current, as it was")
        return
    print(f"{name} {version} is current")
    if before:
        print(f"undo: {command('activate', name, before, store=store.root)}")


def _verify(arguments: list[str]) -> None:
    store, options = _parse(
        "verify",
        ["[NAME]", "[VERSION]"],
        "Checks each version as a service does before it serves it: the manifest's seal,\n"
        "the SHA-256 of every file, and what the model answers to probe pictures.\n"
        "Ends with status 1 if anything is broken.",
        arguments,
    )
    if options.name:
        _check_known(store, options.name, options.version)
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


def _parse(
    word: str, names: Sequence[str], description: str, arguments: list[str], *, as_json: bool = False
) -> tuple[ModelStore, argparse.Namespace]:
    parser = Parser(
        f"{PROGRAM} {word}", usage=" ".join(["%(prog)s", *names, "[--store FOLDER]"]), description=description
    )
    what = parser.add_argument_group("what")
    for name in names:
        plain = name.strip("[]")
        what.add_argument(plain.lower(), metavar=plain, nargs=None if name == plain else "?", help=_ARGUMENTS[plain])
    how = parser.add_argument_group("options")
    how.add_argument("--store", metavar="FOLDER", type=Path, default=STORE, help="folder of the model store")
    if as_json:
        how.add_argument("--json", action="store_true", help="for programs")
    add_help(how)
    options = parser.parse(arguments)
    if not options.store.is_dir():
        raise TrainingError(f"there is no store {options.store}")
    return ModelStore(options.store), options


def _check_known(store: ModelStore, name: str, version: str | None) -> None:
    known = store.contents()
    if name not in known:
        raise UnknownModel(f"{store.root} has no model {name!r}{did_you_mean(name, known)}")
    if version is not None and version not in known[name]:
        raise UnknownVersion(f"{name} has no version {version!r}{did_you_mean(version, known[name])}")


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
    """The manifest without its bulk: single scores, indices of pictures, the golden picture."""
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
