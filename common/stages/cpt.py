"""Continued pre-training: the domain's text, mixed with replay of what the model must not forget.

Usage: named by a pipeline as `cpt: {kind: cpt, from: base}`.

Every token is learned; documents of one row cannot see each other. The learning rate is re-warmed from zero, as
the base's own schedule has ended. Conversations among the replay rows are plain text here. With a `label` stage in
`with`, its texts are read in place of the domain's.
"""

from __future__ import annotations

from common.config.kinds import Kind
from common.config.stages import CptSettings
from common.stage import StageContext, StageReport
from common.training.adapters import load_parent
from common.training.fit import check_and_save, fit, report, text_probe
from common.training.freezing import check_train_only
from common.training.rows.rows import build_rows


def run(context: StageContext) -> StageReport:
    """Return the parent, trained on the domain's text."""
    model, tokenizer = load_parent(context)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    trained = fit(context, model, tokenizer, rows)
    measured = check_and_save(context, trained, tokenizer, probe=text_probe(tokenizer))
    return report(context, trained, measured, rows.counts, rows.read)


KIND = Kind(
    name="cpt", settings=CptSettings, run=run, check=check_train_only, roles=("cpt", "replay"),
    reads=("labelled text",), shareable=True,
    phrase="continued pre-training on the domain's text", part="text",
)  # fmt: skip
