"""Let a checkpoint answer the domain's prompts several times, score the answers, and sort them for other stages.

Usage: named by a pipeline as `sample: {kind: sample, from: sft}`, with reward models in `with`; then
`dpo: {kind: dpo, from: sft, with: [sample]}` learns from its pairs, `sft` from its right answers, `grpo` from its
prompts.

What it makes is no model but four files: `samples.jsonl` with everything, `pairs.jsonl`, `answers.jsonl` (rejection
sampling), and `prompts.jsonl` with pass rates.
"""

from __future__ import annotations

import time
from typing import cast

from common.config.answering import SampleSettings
from common.config.kinds import Kind
from common.data.accounting import check_limits
from common.errors import DataError
from common.models import checkpoint
from common.models.device import device_of
from common.rewards.mix import check_stage_rewards
from common.rewards.reward_model import mix_of
from common.stage import StageContext, StageReport
from common.store.artifacts import write_rows
from common.training.rows.prompts import read_prompts
from common.training.rows.reader import SAMPLED_FILES
from common.training.sampling import draw, facts_of, pairs_of, prompt_rows, right_answers, write_drawn


def run(context: StageContext) -> StageReport:
    """Write the four files. Raises DataError where neither a pair nor a right answer came out."""
    settings = cast(SampleSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    rows, counts = read_prompts(context, tokenizer)
    check_limits(counts, settings.limits, context.stage)
    if not rows:
        raise DataError(f"Stage {context.stage}: no prompt of the role prompts is usable. Add sources with that role.")
    device = device_of(context.config.run)
    mix = mix_of(context, settings, device)
    started = time.monotonic()

    drawn = draw(context, model.to(device), tokenizer, rows[: settings.prompts], mix)

    seconds = time.monotonic() - started
    pairs, no_pair = pairs_of(drawn, settings.margin)
    answers, left_out = right_answers([drawn], settings)
    facts = facts_of(drawn, settings.passing)
    if not pairs and not answers:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in no_pair.items())
        raise DataError(
            f"Stage {context.stage}: {facts['answers']} answers to {facts['prompts']} prompts gave no pair "
            f"({reasons}) and no right answer (a total of {settings.passing} or more; the mean is "
            f"{facts['mean_reward']}, {facts['unstopped']:.0%} did not stop). Look at the rewards, raise "
            f"{context.stage}.samples or .answer_tokens, lower .passing, or teach {context.parent} more first."
        )
    write_drawn(context.out / "samples.jsonl", drawn)
    write_rows(context.out / SAMPLED_FILES["preference"], pairs)
    write_rows(context.out / SAMPLED_FILES["sft"], answers)
    write_rows(context.out / SAMPLED_FILES["prompts"], prompt_rows(drawn, settings.passing))
    metrics = {
        **facts, "pairs": len(pairs), "no_pair": dict(no_pair), "kept": len(answers), "not_kept": dict(left_out),
        "tokens_drawn_per_second": round(facts["tokens_drawn"] / seconds, 1),
    }  # fmt: skip
    return StageReport(
        metrics=metrics, rows=[count.as_dict() for count in counts], sources=context.corpus.sources()
    )  # `tokens` are those trained on: none


KIND = Kind(
    name="sample", settings=SampleSettings, run=run, check=check_stage_rewards, makes="sample", roles=("prompts",),
    reads=("reward model",),
)  # fmt: skip
