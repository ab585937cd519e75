"""The data card: what a set is, how it was made, under whose licences, and what to mind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freestyle.files import write_text
from freestyle.generation.finish import Finished
from freestyle.generation.journal import Journal
from freestyle.generation.parts import Recipe

_NOTES = {
    "animatediff": "made from the caption alone, so it holds no more of the photo than the caption "
    "says",
    "gram": "keeps the photo's content; colours and textures are those of the style pictures",
}


def write_card(
    journal: Journal, recipe: Recipe, finished: Finished, statistics: Mapping[str, Any] | None
) -> None:
    """Write ``CARD.md``.

    Args:
        journal: Of the finished set.
        recipe: It was made by.
        finished: What it holds.
        statistics: From `freestyle.generation.statistics`, where there are any.
    """
    root = journal.root
    splits = ", ".join(f"{count:,} {split}" for split, count in finished.splits.items())
    lines = [
        "# A query set",
        "",
        f"{len(finished.ids):,} photos ({splits}) with queries in the styles "
        f"{', '.join(finished.styles)}, in the DSR layout; made by `freestyle generate`.",
        "",
        "| style | engine | settings | models and their licences |",
        "| --- | --- | --- | --- |",
    ]
    for style in finished.styles:
        made_by = _made_by(journal, style)
        settings = ", ".join(f"{k} {_shown(v)}" for k, v in made_by.get("settings", {}).items())
        models = "; ".join(_model(model) for model in made_by.get("models", [])) or "none"
        lines.append(f"| {style} | {made_by.get('engine', '')} | {settings} | {models} |")
    lines += ["", "## To mind", ""]
    lines.append("- The photos keep their own licence; what is made of them is derived from them.")
    for style in finished.styles:
        note = _NOTES.get(recipe.styles.get(style, {}).get("engine", ""))
        if note:
            lines.append(f"- `{style}` {note}.")
    lines.append(
        f"- Splits are by hash of the photo's id. {finished.duplicates:,} photos have a near "
        "duplicate (perceptual hash), which is kept on the same side"
        + (f"; {finished.divided} such groups were divided before." if finished.divided else ".")
    )
    lines.append(
        f"- {len(finished.errors):,} photos could not be used: see `errors.jsonl`."
        if finished.errors
        else "- Every photo could be used."
    )
    lines.append(
        f"- Seed {recipe.seed}; longer side at most {recipe.max_side or 'any'} px. Each line of "
        "`sidecar/<style>.jsonl` holds all that makes its picture again."
    )
    if statistics:
        weakest = min(statistics["recognised"], key=statistics["recognised"].get)
        share = 100 * statistics["recognised"][weakest]
        lines.append(
            f"- Style codes ([statistics.md](statistics.md)): the set least told from the others "
            f"is `{weakest}`, {share:.0f} % recognised."
        )
    lines += [
        "",
        "## Use",
        "",
        "```",
        "python train.py fit --config configs/emoji_mini_freestyle.yaml --data.root FOLDER "
        "--data.name NAME",
        "python eval.py --data FOLDER --model runs/emoji_mini_freestyle/model",
        "```",
        "",
    ]
    if (root / "contact_sheet.png").is_file():
        lines.append("![Photos and what was made of them](contact_sheet.png)\n")
    write_text(root / "CARD.md", "\n".join(lines))


def _made_by(journal: Journal, style: str) -> dict[str, Any]:
    row = next(iter(journal.rows(style)), {})
    return row.get("made_by", {})


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _model(model: Mapping[str, Any]) -> str:
    return f"{model['role']} `{model['id']}` @ {model['revision']} ({model['licence']})"
