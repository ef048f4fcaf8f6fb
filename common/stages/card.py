"""The card: what the whole chain did, as README.md, summary.json, card.json and two or three plots.

Usage: `run(context)`; `context.inputs` holds every model stage and every exam of the pipeline, in its order.

It reads results and writes about them; it scores nothing. No file names a machine, user or path.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import cast

from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import CardSettings, PublishSettings
from common.errors import ConfigError
from common.report.card import About, render_card
from common.report.chain import load_chain
from common.report.choice import choose
from common.report.comparisons import compare_chain, compare_chain_texts
from common.report.headline import headline
from common.report.licences import licence_notes, licence_of_chain, restated
from common.report.long_context import PICTURE
from common.report.long_context import measured as measured_far
from common.report.markdown import one_line
from common.report.plots import draw_domains, draw_exam, draw_long_context, draw_loss, draw_rewards
from common.report.privacy import clean, clean_text
from common.report.record import build_record, build_summary
from common.report.sequence import matrix_rows, measured
from common.report.stage_notes import REWARDS_PICTURE, has_rewards
from common.stage import StageContext, StageReport
from common.store.artifacts import write_json

log = logging.getLogger(__name__)


def run(context: StageContext) -> StageReport:
    """Write the report into `context.out`."""
    about = _about(context)
    publish = context.config.stages["publish"]
    assert isinstance(publish, PublishSettings)
    chain = load_chain(context.inputs, context.parent, context.controls, context.nodes)
    chain = restated(chain, context.config.model, context.corpus)
    choice = choose(chain, publish.choose, context.config.gate.max_general_drop)
    chain = replace(chain, published=choice.published)
    licence = licence_of_chain(chain, publish.licence)
    comparisons, texts = compare_chain(chain), compare_chain_texts(chain)
    names = {"domain": about.domain, "profile": about.profile, "pipeline": about.pipeline}
    summary = build_summary(chain, choice.sentence, **names)
    write_json(context.out / "summary.json", summary.model_dump())
    facts = {**names, "title": about.title, "seed": about.seed, "licence": licence.id}
    facts |= {"licences": asdict(licence), "choice": asdict(choice)}
    write_json(context.out / "card.json", build_record(chain, comparisons, texts, facts))
    draw_loss(chain, context.out / "loss.png", work=context.work)
    draw_exam(chain, context.out / "exam.png", work=context.work)
    if measured(chain) is not None:
        draw_domains(chain, context.out / "domains.png", work=context.work)
    if has_rewards(chain):
        draw_rewards(chain, context.out / REWARDS_PICTURE, work=context.work)
    if measured_far(chain):
        draw_long_context(chain, context.out / PICTURE, work=context.work)
    text = render_card(chain, comparisons, texts, about, licence, choice.sentence)
    (context.out / "README.md").write_text(text, encoding="utf-8")
    log.info("card: %d checkpoints, %d comparisons", len(chain.checkpoints), len(comparisons))
    return StageReport(metrics={
        "published": chain.published, "choice": asdict(choice), "headline": headline(chain, comparisons, texts),
        "licence": licence.id, "licences": licence_notes(licence),
        **({"domains": list(chain.domains), "matrix": matrix_rows(chain)} if chain.domains else {}),
    })  # fmt: skip


def check(node: Node, settings: CardSettings, resolved: Resolved) -> None:
    """Check what the card must state. Raises ConfigError."""
    if not settings.limits_of_use.strip():
        raise ConfigError(
            f"card.limits_of_use is empty; say in {resolved.domain_folder.name}/stages.yaml what the specialist "
            "must not be used for."
        )


KIND = Kind(name="card", settings=CardSettings, run=run, check=check, makes="report", on_gpu=False, seconds=3.0)


def _about(context: StageContext) -> About:
    settings = cast(CardSettings, context.settings)
    return About(
        domain=context.config.domain,
        title=one_line(clean_text(context.corpus.domain_title)),
        profile=context.config.profile,
        pipeline=context.config.pipeline,
        seed=context.config.seed,
        tags=tuple(map(one_line, clean(settings.tags))),
        intended_use=clean_text(settings.intended_use.strip()),
        limits_of_use=clean_text(settings.limits_of_use.strip()),
    )
