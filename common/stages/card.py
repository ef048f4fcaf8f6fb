"""The card: what the whole chain did, as README.md, summary.json, card.json and two or three plots.

Usage: `run(context)`; `context.inputs` holds every model stage and every exam of the pipeline, in its order.

It reads results and writes about them; it scores nothing. No file names a machine, user or path.
"""

from __future__ import annotations

import logging

from common.config.kinds import Kind
from common.config.pipeline import Node
from common.config.resolve import Resolved
from common.config.stages import CardSettings
from common.errors import ConfigError
from common.models.source import is_hub_id
from common.report.card import About, render_card
from common.report.chain import load_chain
from common.report.comparisons import compare_chain, compare_chain_texts
from common.report.headline import headline
from common.report.plots import draw_exam, draw_loss, draw_rewards
from common.report.privacy import clean, clean_text
from common.report.record import build_record, build_summary
from common.report.stage_notes import REWARDS_PICTURE, has_rewards
from common.stage import StageContext, StageReport
from common.store.artifacts import write_json

log = logging.getLogger(__name__)
# Licences that let what is made from a checkpoint be published under another one.
PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "cc-by-4.0")


def run(context: StageContext) -> StageReport:
    """Write the report into `context.out`."""
    about = _about(context)
    chain = load_chain(context.inputs, context.parent, context.controls)
    comparisons, texts = compare_chain(chain), compare_chain_texts(chain)
    names = {"domain": about.domain, "profile": about.profile, "pipeline": about.pipeline}
    summary = build_summary(chain, **names)
    write_json(context.out / "summary.json", summary.model_dump())
    facts = {**names, "title": about.title, "seed": about.seed, "licence": about.licence}
    write_json(context.out / "card.json", build_record(chain, comparisons, texts, facts))
    draw_loss(chain, context.out / "loss.png", work=context.work)
    draw_exam(chain, context.out / "exam.png", work=context.work)
    if has_rewards(chain):
        draw_rewards(chain, context.out / REWARDS_PICTURE, work=context.work)
    (context.out / "README.md").write_text(render_card(chain, comparisons, texts, about), encoding="utf-8")
    log.info("card: %d checkpoints, %d comparisons", len(chain.checkpoints), len(comparisons))
    return StageReport(metrics={"published": chain.published, "headline": headline(chain, comparisons)})


def check(node: Node, settings: CardSettings, resolved: Resolved) -> None:
    """Check what the card must state, and that its licence keeps what the base model's asks. Raises ConfigError."""
    if not settings.limits_of_use.strip():
        raise ConfigError(
            f"card.limits_of_use is empty; say in {resolved.domain_folder.name}/stages.yaml what the specialist "
            "must not be used for."
        )
    model = resolved.config.model
    facts = model.facts
    if facts is not None and facts.licence not in PERMISSIVE and settings.licence != facts.licence:
        raise ConfigError(
            f"card.licence={settings.licence}, but {model.path} is under {facts.licence} (model.facts.licence), which "
            f"holds for what is made from it too; set card.licence={facts.licence}."
        )


KIND = Kind(
    name="card", settings=CardSettings, run=run, check=check, makes="report", on_gpu=False, seconds=3.0,
)  # fmt: skip


def _about(context: StageContext) -> About:
    settings, model = context.settings, context.config.model
    assert isinstance(settings, CardSettings)
    return About(
        domain=context.config.domain,
        title=clean_text(context.corpus.domain_title),
        profile=context.config.profile,
        pipeline=context.config.pipeline,
        seed=context.config.seed,
        base_model=model.path if is_hub_id(model.path) else None,  # the path of a local folder is private
        pretrained=model.path is None,
        licence=settings.licence,
        tags=tuple(clean(settings.tags)),
        intended_use=clean_text(settings.intended_use.strip()),
        limits_of_use=clean_text(settings.limits_of_use.strip()),
    )
