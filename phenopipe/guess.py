"""What the columns of a lab's own table mean, guessed from their names and contents."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from phenopipe.errors import UserError
from phenopipe.screen.columns import columns_read
from phenopipe.screen.config import ProfilesKnobs, WellColumns

# Names of columns, as :func:`_plain` writes them, the likeliest first.
NAMES: dict[str, tuple[str, ...]] = {
    "plate": ("plate", "platename", "assayplatebarcode", "platebarcode", "barcode", "plateid"),
    "layout": ("layout", "platelayout", "layoutid", "platemap", "platemapname"),
    "well": ("well", "wellposition", "wellname", "address", "wellid"),
    "experiment": ("experiment", "experimentname", "batch", "run", "week"),
    "role": ("role", "controltype", "control", "welltype", "perttype", "type"),
    "perturbation": (
        *("perturbation", "treatment", "guide", "sgrna", "sgrnaid", "sirna", "compound"),
        *(
            "compoundid",
            "compoundname",
            "drug",
            "broadsample",
            "moleculeid",
            "condition",
            "gene",
        ),
    ),
    "gene": ("gene", "genesymbol", "symbol", "targetgene", "target"),
    "guide": ("guide", "sgrna", "sgrnaid"),
    "kind": ("kind", "perturbationtype", "modality"),
    "concentration": (
        *("concentrationum", "concentration", "doseum", "dose", "concum", "conc"),
        "mmolespersample",
    ),
    "unit": ("concentrationunit", "doseunit", "unit"),
    "cell_type": ("celltype", "cellline", "cells", "cell"),
    "site": ("site", "field", "fieldofview", "fov", "fieldid"),
    "channel": ("channel", "channelname", "stain", "wavelength"),
}
ROLES: dict[str, tuple[str, ...]] = {
    "negative_control": (
        *("negcon", "negative", "negativecontrol", "neg", "control", "dmso", "vehicle", "ctrl"),
        *("mock", "untreated", "nontargeting", "ntc", "scrambled", "emptycontrol"),
    ),
    "positive_control": ("poscon", "positive", "positivecontrol", "pos"),
    "empty": ("empty", "blank", "nocells"),
}
KINDS = {"sirna": ("sirna",), "knockout": ("guide", "sgrna", "sgrnaid", "gene")}
IMAGE = re.compile(r"\.(png|tiff?|jp2|j2k|jpe?g)$", re.IGNORECASE)
BESIDE_CHANNEL = re.compile(
    r"^(metadata|image|url|path(name)?|file(name)?|orig)[_ ]*", re.IGNORECASE
)
METADATA_PREFIX: str = ProfilesKnobs.model_fields["metadata_prefix"].default
# Fewer columns of numbers than these are hardly features.
FEW_FEATURES = 10
# More words than these in a column of roles are hardly roles.
MANY_WORDS = 20


class Guess(NamedTuple):
    """The entry of a screen, and one line for each thing that was guessed.

    ``repeated`` says whether two experiments have plates of one layout, in which replicates
    can be matched.
    """

    screen: dict[str, Any]
    told: list[str]
    repeated: bool


def guess(table: pl.DataFrame, name: str) -> Guess:
    """Describe a table as a screen of source ``images`` or ``profiles``.

    Parameters
    ----------
    table : DataFrame
        The lab's own table.
    name : str
        Name of its file.

    Raises
    ------
    UserError
        If no column can be plate, well, perturbation or control, or neither files nor
        features are found.
    """
    found = {what: _column(table, what) for what in NAMES}
    for what in ("well", "perturbation"):
        if found[what] is None:
            raise UserError(
                f"{name}: no column looks like {what}, wanted a name such as"
                f" {', '.join(NAMES[what][:4])}; columns are {', '.join(table.columns[:12])}"
            )
    told: list[str] = []
    pixels = _pixels(table, found, told)
    columns = _columns(table, found, told)
    roles, untreated = _roles(table, found, columns, told, name)
    screen = {
        "source": "images" if pixels else "profiles",
        "tables": [name],
        **(pixels or _features(table, found, columns, told, name)),
        "columns": columns,
        "roles": roles,
        "untreated": untreated,
        "experiments": _experiments(table, found["experiment"], told),
    }
    return Guess(screen, told, _repeated(table, found, told))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("metadata_"))


def _column(table: pl.DataFrame, what: str) -> str | None:
    plain = {_plain(name): name for name in reversed(table.columns)}
    return next((plain[one] for one in NAMES[what] if one in plain), None)


def _words(table: pl.DataFrame, column: str) -> list[str]:
    texts = table[column].cast(pl.String).str.strip_chars().replace("", None)
    return texts.drop_nulls().unique().sort().to_list()


def _pixels(
    table: pl.DataFrame, found: dict[str, str | None], told: list[str]
) -> dict[str, Any] | None:
    """Find columns of image files: one a channel, or one beside a column of channels."""
    columns = [
        name
        for name in table.columns
        if table[name].dtype == pl.String
        and table[name].drop_nulls().head(100).str.contains(IMAGE.pattern).any()
    ]
    if not columns:
        return None
    site = {"site": found["site"]} if found["site"] else {}
    if len(columns) == 1 and found["channel"]:
        channels = _words(table, found["channel"])
        told.append(f"files: column {columns[0]}, channels by column {found['channel']}")
        return {
            "channels": channels,
            "file": columns[0],
            "channel": found["channel"],
            **site,
        }
    names = [_channel(name) for name in columns]
    channels = names if len(set(names)) == len(names) else columns
    told.append(f"channels: {', '.join(channels)}, one column of files each")
    return {"channels": channels, "files": dict(zip(channels, columns, strict=True)), **site}


def _channel(column: str) -> str:
    """Name the channel of a column of files.

    Examples
    --------
    >>> _channel("FileName_OrigDNA"), _channel("image_path_ER")
    ('DNA', 'ER')
    """
    left = column
    while (shorter := BESIDE_CHANNEL.sub("", left)) != left and shorter:
        left = shorter
    return left


def _features(
    table: pl.DataFrame,
    found: dict[str, str | None],
    columns: dict[str, Any],
    told: list[str],
    name: str,
) -> dict[str, Any]:
    """Take decimal columns for features, and leave out what else would be one."""
    named = columns_read(WellColumns.model_validate(columns)) | {found["experiment"]}
    unnamed = [
        one for one in table.columns if one not in named and not one.startswith(METADATA_PREFIX)
    ]
    features = [
        one for one in unnamed if table[one].dtype.is_float() and one not in found.values()
    ]
    if len(features) < FEW_FEATURES:
        raise UserError(
            f"{name}: no column of image files and {len(features)} of features, wanted paths"
            f" that end in .png, .tif or .jp2, or at least {FEW_FEATURES} columns of numbers"
        )
    told.append(f"features: {len(features)} decimal columns, {features[0]} to {features[-1]}")
    others = [one for one in unnamed if one not in features]
    if not others:
        return {}
    told.append(f"leave_out: not decimal, so taken for no features: {', '.join(others)}")
    return {"leave_out": others}


def _columns(
    table: pl.DataFrame, found: dict[str, str | None], told: list[str]
) -> dict[str, Any]:
    what = found["perturbation"]
    treatment: dict[str, Any] = {"perturbation": what, "kind": found["kind"]}
    if found["kind"] is None:
        plain = _plain(str(what))
        kind = next((kind for kind, names in KINDS.items() if plain in names), "compound")
        treatment["kind"] = {"constant": kind}
        told.append(f"kind of perturbation: {kind}, from the name of column {what}")
    for key in ("gene", "guide"):
        if found[key] and (key == "gene" or found[key] != what):
            treatment[key] = found[key]
    if found["concentration"]:
        treatment["concentration"] = found["concentration"]
        treatment["concentration_unit"] = found["unit"] or {"constant": "uM"}
        if not found["unit"]:
            told.append(f"unit of column {found['concentration']}: micromolar")
    columns: dict[str, Any] = {}
    for key in ("plate", "well", "cell_type"):
        columns[key] = found[key]
        if found[key] is None:
            columns[key] = {"constant": "plate-1" if key == "plate" else "unknown"}
            told.append(f"{key}: no column, {columns[key]['constant']!r} for every row")
    if found["layout"]:
        columns["layout"] = found["layout"]
    told.append(f"columns: perturbation {what}, plate {columns['plate']}, well {found['well']}")
    return {**columns, "treatments": [treatment]}


def _roles(
    table: pl.DataFrame,
    found: dict[str, str | None],
    columns: dict[str, Any],
    told: list[str],
    name: str,
) -> tuple[dict[str, list[str]], list[str]]:
    """Sort the words of the column of roles, or of perturbations, into roles."""
    column = found["role"]
    if column is not None and len(_words(table, column)) > MANY_WORDS:
        column = None
    perturbation = str(found["perturbation"])
    roles: dict[str, list[str]] = {}
    columns["role"] = column or perturbation
    for word in _words(table, columns["role"]):
        roles.setdefault(_role(word), []).append(word)
    is_blank = _is_blank(table[columns["role"]])
    if is_blank.any():
        # Most tables leave the role of treated wells open, some of untreated ones.
        treated = ~_is_blank(table[perturbation].filter(is_blank))
        untold = "empty" if "negative_control" in roles else "negative_control"
        blank = "perturbation" if 2 * treated.sum() > treated.len() else untold
        roles.setdefault(blank, []).append("")
        told.append(f"blank cells of column {columns['role']}: {blank.replace('_', ' ')}")
    if "negative_control" not in roles:
        raise UserError(
            f"{name}: no negative control in column {columns['role']}, wanted a word like"
            f" {', '.join(ROLES['negative_control'][:6])}; or write the configuration by hand"
        )
    told.append(
        f"roles by column {columns['role']}: negative control is"
        f" {', '.join(map(repr, roles['negative_control']))}"
    )
    nothing = (*ROLES["negative_control"], *ROLES["empty"])
    return roles, [word for word in _words(table, perturbation) if _plain(word) in nothing]


def _role(word: str) -> str:
    """Role that a word names; a long one may go on (``poscon_diverse``)."""
    plain = _plain(word)
    for role, words in ROLES.items():
        if any(plain == one or (len(one) > 5 and plain.startswith(one)) for one in words):
            return role
    return "perturbation"


def _is_blank(column: pl.Series) -> pl.Series:
    return column.cast(pl.String).fill_null("").str.strip_chars() == ""


def _experiments(
    table: pl.DataFrame, column: str | None, told: list[str]
) -> dict[str, dict[str, Any]]:
    if column is None:
        told.append(
            "experiments: one; a column named experiment or batch would tell them apart"
        )
        return {"all": {}}
    words: Sequence[str] = _words(table, column)
    told.append(f"experiments: {len(words)}, by column {column}")
    # Names of experiments become names of folders.
    safe = [re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-.") or "none" for word in words]
    if len(set(safe)) < len(safe):
        safe = [f"experiment-{i}" for i in range(1, len(words) + 1)]
    return {one: {"where": {column: [word]}} for one, word in zip(safe, words, strict=True)}


def _repeated(table: pl.DataFrame, found: dict[str, str | None], told: list[str]) -> bool:
    """Whether a layout of plates (or the name of a plate) is found in two experiments."""
    layout, experiment = found["layout"] or found["plate"], found["experiment"]
    if layout and experiment:
        seen = table.select(layout, experiment).unique()
        if not seen[layout].is_unique().all():
            return True
    told.append(
        "benchmark replicates: left out, since no two experiments share a layout; a column"
        " named layout would tell which plates do"
    )
    return False
