"""Tables of a benchmark's result, for people; what every figure is, :mod:`fpkit.bench` says."""

from __future__ import annotations

from collections.abc import Iterator

from fpkit.protocol import SHOTS, Result

Row = tuple[str, ...]
SHOT_NAMES = tuple(f"{k}-shot" for k in SHOTS)


def format_table(result: Result) -> str:
    """Tables of a :func:`fpkit.bench.bench` result.

    One line per method over all images, then one per method and format. Recall, and shares of
    probes, are in per cent, in brackets the 95% interval over models.
    """
    blocks = [[_heading(result)], _grid(_identification(result)), _grid(_verification(result))]
    for title, rows in (
        ("Recall of each family, all models being candidates", _families(result)),
        (
            "Open set: a third of the models is not enrolled. Photographs are accepted at the\n"
            "thresholds that 95% of the known, 5% and 1% of the unknown probes reach",
            _open_set(result),
        ),
        (
            "Degraded probes, clean gallery (kept: share of the same probes' clean 10-shot)",
            _degraded(result),
        ),
    ):
        if len(rows) > 1:
            blocks.append([f"{title}:", *_grid(rows)])
    notes = [f"note: {note}" for note in result["notes"]]
    notes += [f"skipped: {entry['reason']}" for entry in result["skipped"]]
    return "\n\n".join("\n".join(block) for block in (*blocks, notes) if block)


def _heading(result: Result) -> str:
    subset = result["subset"]
    parts = [f"{result[name]} {name}" for name in ("models", "images", "draws")]
    parts += [f"content {', '.join(subset['contents'])}"] if subset["contents"] else []
    without = subset["without_contents"]
    parts += [f"without content {', '.join(without)}"] if without else []
    parts += [f"{subset['format']} only"] if subset["format"] else []
    if result["recompress"] is not None:
        parts.append(f"all through JPEG {result['recompress']}")
    return ", ".join(parts)


def _parts(result: Result) -> Iterator[tuple[str, str, Result]]:
    """Images, method and figures of each line: all images first, then each of several formats."""
    methods = result["methods"]
    formats = sorted({name for overall in methods.values() for name in overall["by_format"]})
    for images in ("all", *(formats if len(formats) > 1 else ())):
        for name, overall in methods.items():
            yield images, name, overall if images == "all" else overall["by_format"][images]


def _identification(result: Result) -> list[Row]:
    rows = [("images", "method", *SHOT_NAMES, f"{SHOT_NAMES[-1]} decoder", "ms/image")]
    for images, name, part in _parts(result):
        decoder = _percent(part["identification"][str(SHOTS[-1])]["decoder_level"])
        speed = f"{1000 * part['seconds_per_image']:.1f}"
        rows.append((images, name, *_shots(part), decoder, speed))
    return rows


def _verification(result: Result) -> list[Row]:
    names = ("auc", "auc_within_content", "eer", "tar_at_far_0.01")
    rows = [("images", "method", "AUC", "AUC same content", "EER", "TAR@1%")]
    for images, method, part in _parts(result):
        rows.append((images, method, *(_with_interval(part, name) for name in names)))
    return rows


def _families(result: Result) -> list[Row]:
    rows = [("images", "method", "family", "models", *SHOT_NAMES)]
    for images, method, part in _parts(result):
        for family, entry in part["by_family"].items():
            rows.append((images, method, family, str(entry["models"]), *_shots(entry)))
    return rows


def _open_set(result: Result) -> list[Row]:
    unknown = ("OSCR", "AUROC", "FAR@TAR95%", "CCR@FAR5%", "CCR@FAR1%")
    photos = ("photos: AUROC", "FAR@TAR95%", "@5%", "@1%")
    rows = [("images", "method", *unknown, *photos)]
    for images, method, part in _parts(result):
        entry = part["open_set"]
        if entry is None:
            continue
        areas = [f"{entry[name]:.2f}" for name in ("oscr", "auroc")]
        names = ("far_at_tar_0.95", "ccr_at_far_0.05", "ccr_at_far_0.01")
        cells = [*areas, *(_percent(entry[name]) for name in names)]
        photo = entry["photos"]
        if photo is None:
            cells += ["-"] * len(photos)
        else:
            names = ("far_at_tar_0.95", "far_at_unknown_0.05", "far_at_unknown_0.01")
            cells += [f"{photo['auroc']:.2f}", *(_percent(photo[name]) for name in names)]
        rows.append((images, method, *cells))
    return rows


def _degraded(result: Result) -> list[Row]:
    rows = [("images", "method", "degraded", "models", *SHOT_NAMES, "kept", "AUC", "EER")]
    for images, method, part in _parts(result):
        for name, entry in part["degraded"].items():
            kept = _percent(entry["kept"][str(SHOTS[-1])])
            verified = [_with_interval(entry, key) for key in ("auc", "eer")]
            rows.append(
                (images, method, name, str(entry["models"]), *_shots(entry), kept, *verified)
            )
    return rows


def _grid(rows: list[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _shots(part: Result) -> list[str]:
    cells = []
    for k in SHOTS:
        entry = part["identification"][str(k)]
        interval = entry["ci95"]
        inside = "" if interval is None else f" [{', '.join(map(_percent, interval))}]"
        cells.append(_percent(entry["mean"]) + inside)
    return cells


def _with_interval(part: Result, name: str) -> str:
    if part[name] is None:
        return "-"
    interval = part["ci95"][name]
    inside = "" if interval is None else " [{:.2f}, {:.2f}]".format(*interval)
    return f"{part[name]:.2f}{inside}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
