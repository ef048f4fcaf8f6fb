"""The start of the chain: pretrain the profile's small architecture, or check and take its checkpoint.

Usage: named by a pipeline as `base: {kind: base}`; the profile's `model:` block decides which of the two.

Pretraining is for models that fit the embedded world; a real profile names a checkpoint instead.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from common.config.kinds import Kind
from common.config.schema import ModelSettings
from common.config.stages import BaseSettings
from common.errors import ConfigError, ContractError, did_you_mean
from common.models import checkpoint, contracts
from common.models.facts import check_facts, check_loaded
from common.models.source import describe, fetch
from common.models.tokenizer import common_words, give_chatml, require_trainable_template, train_tokenizer
from common.stage import StageContext, StageReport
from common.training.fit import TrainResult, check_and_save, fit, report, text_probe
from common.training.rows.rows import build_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(context: StageContext) -> StageReport:
    """Return the first model of the chain."""
    if context.config.model.path is not None:
        return _take(context, context.config.model)
    tokenizer = make_tokenizer(context)
    model = initialise(context, tokenizer)
    rows = build_rows(context, tokenizer, role="pretrain", assistant_only=False)
    trained = fit(context, model, tokenizer, rows)
    measured = check_and_save(context, trained, tokenizer, probe=text_probe(tokenizer))
    return report(context, trained, {**measured, "parameters": model.num_parameters()}, rows.counts)


KIND = Kind(
    name="base", settings=BaseSettings, run=run, starts=True, roles=("pretrain",), shareable=True,
    phrase="the base model",
)  # fmt: skip


def make_tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    settings = context.config.model
    length = int(settings.architecture.get("max_position_embeddings", 2048))
    texts = (row["text"] for row in context.corpus.rows("pretrain") if "text" in row)
    tokenizer = train_tokenizer(itertools.chain(texts, common_words()), settings.vocabulary_size, length)
    require_trainable_template(tokenizer)
    tokenizer.add_tokens(list(settings.new_tokens))
    return tokenizer


def initialise(context: StageContext, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Build the architecture with seeded random weights. Raises ConfigError for a key LlamaConfig lacks."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, set_seed

    known = set(LlamaConfig().to_dict())
    for key in context.config.model.architecture:
        if key not in known:
            raise ConfigError(f"model.architecture.{key}: LlamaConfig has no such key.{did_you_mean(key, known)}")
    set_seed(context.config.seed)
    stops = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(**{"vocab_size": len(tokenizer), **stops, **context.config.model.architecture})
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**stops)
    return model


def _take(context: StageContext, settings: ModelSettings) -> StageReport:
    """Take a checkpoint from a folder or the Hub, check that the chain can be built on it, and save it as ours."""
    from transformers import set_seed

    folder = fetch(settings)
    checkpoint.check_weights(folder)
    check_facts(folder, settings)
    model, tokenizer = checkpoint.load(folder, settings)
    check_loaded(model, tokenizer, settings, folder)
    contracts.check_vocabulary(model, tokenizer)
    if settings.chat_template == "chatml":
        give_chatml(tokenizer, model)
    contracts.check_stop_tokens(model, tokenizer)
    _mark_template(context, tokenizer)
    if added := tokenizer.add_tokens(list(settings.new_tokens)):
        set_seed(context.config.seed)  # the rows are drawn around the mean of the others
        spare = model.get_input_embeddings().weight.shape[0]
        model.resize_token_embeddings(max(spare, len(tokenizer)))
        context.console.line(f"  {context.stage}: {added} new tokens")
    check_and_save(context, TrainResult(model), tokenizer, probe=text_probe(tokenizer))
    source = {**describe(settings), "role": "base model", "revision": settings.revision, "rows": None}
    return StageReport(metrics={"parameters": model.num_parameters(), "steps": 0}, sources=[source])


def _mark_template(context: StageContext, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a well-known chat template the generation markers that it lacks; TRL keeps marked twins of them.

    Raises ContractError for a template without markers that TRL does not know.
    """
    from trl.chat_template_utils import get_training_chat_template

    try:
        require_trainable_template(tokenizer)
    except ContractError as problem:
        try:
            marked = get_training_chat_template(tokenizer) if tokenizer.chat_template else None
        except ValueError:
            marked = None
        if marked is None:
            raise problem
        tokenizer.chat_template = marked
        require_trainable_template(tokenizer)
        context.console.line(f"  {context.stage}: generation markers added to the checkpoint's chat template")
