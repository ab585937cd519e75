"""Evaluate models on a split: rows for the report, outcomes for comparisons and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from freestyle.datasets.records import RetrievalSplit
from freestyle.errors import UserError
from freestyle.evaluation.embed import Embedder, Embeddings, Variant
from freestyle.evaluation.evaluate import Outcome, evaluate_queries
from freestyle.evaluation.figures import Case
from freestyle.evaluation.fusion import DEFAULT_FUSION, STITCH, WEIGHTED, Weighted
from freestyle.evaluation.protocols import Protocol
from freestyle.evaluation.ranks import top_k
from freestyle.evaluation.report import Report, Row
from freestyle.evaluation.stitch_fusion import StitchFusion
from freestyle.evaluation.weights import fit_weights

MAP_AT = (10, 50)


@dataclass
class Evaluation:
    """All that came of one evaluation.

    Attributes:
        report: Rows and setting.
        outcomes: Per variant and style the ranks, with the first fusion rule for joint styles.
        embeddings: What they were computed on.
    """

    report: Report
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    embeddings: Embeddings | None = None


def single_styles(styles: Sequence[str]) -> list[str]:
    """The styles that occur in a list of single and joint (``a+b``) styles, once each."""
    return list(dict.fromkeys(part for style in styles for part in style.split("+")))


def evaluate_models(
    variants: dict[str, Variant],
    split: RetrievalSplit,
    styles: Sequence[str],
    *,
    protocol: Protocol | None = None,
    fusions: Sequence[str] = (DEFAULT_FUSION,),
    validation: RetrievalSplit | None = None,
    command: str = "",
    embedder: Embedder | None = None,
    **options: object,
) -> Evaluation:
    """Embed a split with every variant and rank every query.

    Args:
        variants: By the name in the report.
        split: The opened split.
        styles: Single styles and joint ones, such as ``sketch+text``.
        protocol: Whole gallery where None.
        fusions: Rules for joint styles; one row each.
        validation: The split on which ``weighted`` chooses its weights, with the same styles.
        command: Kept in the report.
        embedder: A ready one; else made from ``options``.
        **options: Of :class:`~freestyle.evaluation.embed.Embedder`.

    Returns:
        Report, outcomes and embeddings.

    Raises:
        UserError: If a joint style names one style twice, or files cannot be read.
    """
    protocol = protocol or Protocol()
    for style in styles:
        parts = style.split("+")
        if len(set(parts)) != len(parts) or "" in parts:
            raise UserError(f"joint style '{style}' must join different styles, e.g. sketch+text")
        if len(parts) > 1:
            split.aligned(parts)
    embedder = embedder or Embedder(variants, **options)
    embeddings = embedder.embed(split, single_styles(styles))
    weights = {}
    if WEIGHTED in fusions and any("+" in style for style in styles):
        if validation is None:
            raise UserError("fusion 'weighted' needs a validation split: choose another rule")
        joint = [style for style in styles if "+" in style]
        known = embedder.embed(validation, single_styles(joint))
        weights = joint_weights(variants, known, joint)
    rows, outcomes = rank_embeddings(
        variants, embeddings, styles, protocol=protocol, fusions=fusions, weights=weights
    )
    split = embeddings.split
    encoder = embedder.encoder
    report = Report(
        dataset=split.dataset,
        split=split.split,
        protocol=protocol.name,
        gallery_size=protocol.gallery_size(split.n_gallery),
        encoder=encoder.name,
        weights=encoder.weights_tag,
        command=command,
        rows=tuple(rows),
    )
    return Evaluation(report, outcomes, embeddings)


def rank_embeddings(
    variants: dict[str, Variant],
    embeddings: Embeddings,
    styles: Sequence[str],
    *,
    protocol: Protocol | None = None,
    fusions: Sequence[str] = (DEFAULT_FUSION,),
    weights: dict[tuple[str, str], tuple[float, ...]] | None = None,
) -> tuple[list[Row], dict[str, dict[str, Outcome]]]:
    """Rank every query of what is embedded already.

    Args:
        variants: Those that were embedded.
        embeddings: Of one split.
        styles: Single styles, and joint ones whose parts were embedded.
        protocol: Whole gallery where None.
        fusions: Rules for joint styles; one row each.
        weights: From :func:`joint_weights`, where one of the rules is ``weighted``.

    Returns:
        Rows for a report; per variant and style the outcome, with the first fusion rule.
    """
    protocol, split = protocol or Protocol(), embeddings.split
    map_at = MAP_AT if split.relevance == "class" else ()
    stitch = StitchFusion(split) if STITCH in fusions else None
    if stitch is not None and protocol.batch_size is not None:
        raise UserError(f"fusion '{STITCH}' ranks the whole gallery: leave --protocol out")
    rows: list[Row] = []
    outcomes: dict[str, dict[str, Outcome]] = {name: {} for name in variants}
    for name, variant in variants.items():
        for style in styles:
            parts = style.split("+")
            terms = [embeddings.queries[name][part] for part in parts]
            queries = split.queries[parts[0]]
            for rule in fusions if len(parts) > 1 else (None,):
                joined = {}
                if rule is not None:
                    fitted = rule == WEIGHTED
                    joined["fusion"] = Weighted(weights[name, style]) if fitted else rule
                if rule == STITCH:
                    outcome = stitch.outcome(name, variant, parts)
                else:
                    outcome = evaluate_queries(
                        terms,
                        embeddings.photos(name),
                        queries.groups,
                        split.gallery_groups,
                        protocol=protocol,
                        map_at=map_at,
                        query_ids=queries.ids,
                        **joined,
                    )
                outcomes[name].setdefault(style, outcome)
                rows.append(
                    Row.from_outcome(
                        outcome,
                        method=name,
                        style=style,
                        seed=variant.model.config.seed,
                        fusion=rule,
                    )
                )
    return rows, outcomes


def joint_weights(
    variants: dict[str, Variant], validation: Embeddings, styles: Sequence[str]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Weights of every variant's joint styles, chosen on a validation split.

    Args:
        variants: Those that were embedded.
        validation: Their embeddings of that split.
        styles: Joint styles; single ones are passed over.
    """
    split = validation.split
    found = {}
    for name in variants:
        for style in styles:
            parts = style.split("+")
            if len(parts) > 1:
                found[name, style] = fit_weights(
                    [validation.queries[name][part] for part in parts],
                    validation.photos(name),
                    split.queries[parts[0]].groups,
                    split.gallery_groups,
                )
    return found


def cases(
    evaluation: Evaluation,
    methods: Sequence[str],
    styles: Sequence[str],
    *,
    per_style: int = 1,
    seed: int = 0,
    results: int = 5,
) -> list[Case]:
    """Drawn, not hand-picked, queries for the case-study grid: wins first, then losses.

    For each style, ``per_style`` queries are drawn with a seed from those where the last method
    finds the photo first and the first method does not; the final case of all is drawn from the
    queries where it is the other way round, where there is one.

    Args:
        evaluation: From :func:`evaluate_models` over the whole gallery.
        methods: The compared variants, control first.
        styles: Single picture styles.
        per_style: Wins per style.
        seed: Of the draws.
        results: Photos shown per method.
    """
    random = np.random.default_rng(seed)
    before, after = methods[0], methods[-1]
    picked: list[tuple[str, int]] = []
    losses: list[tuple[str, int]] = []
    for style in styles:
        old = evaluation.outcomes[before][style].ranks.values
        new = evaluation.outcomes[after][style].ranks.values
        wins = np.flatnonzero((new == 1) & (old > 1))
        chosen = random.permutation(wins)[:per_style]
        picked += [(style, int(i)) for i in chosen]
        losses += [(style, int(i)) for i in np.flatnonzero((new > 1) & (old == 1))]
    if losses:
        picked.append(losses[int(random.integers(len(losses)))])
    return [case_of(evaluation, methods, style, row, results) for style, row in picked]


def case_of(
    evaluation: Evaluation,
    methods: Sequence[str],
    style: str,
    row: int,
    results: int = 5,
    label: str | None = None,
) -> Case:
    """One query of a case-study grid.

    Args:
        evaluation: From :func:`evaluate_models` over the whole gallery.
        methods: The compared variants.
        style: A single picture style.
        row: Position of the query among those of its style.
        results: Photos shown per method.
        label: Under the query; None for the style.
    """
    embeddings = evaluation.embeddings
    split = embeddings.split
    queries = split.queries[style]
    group = int(queries.groups[row])
    top = {
        method: top_k(
            embeddings.queries[method][style][row : row + 1],
            embeddings.photos(method),
            results,
            query_groups=[group],
            gallery_groups=split.gallery_groups,
        )[0][0]
        for method in methods
    }
    ranks = {m: int(evaluation.outcomes[m][style].ranks.values[row]) for m in methods}
    return Case.from_top_k(
        queries.sources[row], label or style, top, ranks, split.gallery, group, split.gallery_groups
    )
