"""The start of the chain: pretrain the profile's small architecture, or check and take its checkpoint.

Usage: named by a pipeline as `base: {kind: base}`; the profile's `model:` block decides which of the two.

Pretraining is for models that fit the embedded world; a real profile names a checkpoint instead.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.kinds import Kind
from common.config.schema import ModelSettings
from common.config.stages import BaseSettings
from common.errors import ConfigError, did_you_mean
from common.models import checkpoint, contracts
from common.models.facts import check_loaded
from common.models.language_part import note_part
from common.models.limits import try_tokenizer
from common.models.packed import note_packed, require_unpacked
from common.models.source import check_place, describe, fetch
from common.models.special_tokens import add_rows, num_ids, require_end, settle
from common.models.tokenizer import FOLD_SYSTEM, PLAIN, common_words, give_chatml, knows_chatml, train_tokenizer
from common.models.turns import opens_turn, require_trainable_template, takes_system
from common.stage import StageContext, StageReport
from common.training.fit import TrainResult, check_and_save, fit, report, text_probe
from common.training.rows.reader import Accounts, without_exam
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
    return report(context, trained, {**measured, "parameters": model.num_parameters()}, rows.counts, rows.read)


KIND = Kind(
    name="base", settings=BaseSettings, run=run, starts=True, roles=("pretrain",), shareable=True,
    phrase="the base model",
)  # fmt: skip


def make_tokenizer(context: StageContext) -> PreTrainedTokenizerBase:
    """Train a tokenizer on the texts that the model is pretrained on: those that repeat nothing of the exam."""
    settings = context.config.model
    length = int(settings.architecture.get("max_position_embeddings", 2048))
    rows = without_exam(context, "pretrain", context.corpus.rows("pretrain"), Accounts("pretrain"))
    texts = (row["text"] for row in rows if "text" in row)
    tokenizer = train_tokenizer(itertools.chain(texts, common_words()), settings.vocabulary_size, length)
    require_trainable_template(tokenizer)
    add_tokens(tokenizer, settings)
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, settings: ModelSettings) -> int:
    """Add the tokens that a run asks for and the tokenizer lacks, and return their number."""
    from tokenizers import AddedToken

    control = [AddedToken(name, special=True, normalized=False) for name in settings.control_tokens]
    return int(tokenizer.add_tokens(list(settings.new_tokens)) + tokenizer.add_tokens(control))


def initialise(context: StageContext, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Build the architecture with seeded random weights. Raises ConfigError for what LlamaConfig lacks or refuses."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, set_seed

    known = set(LlamaConfig().to_dict())
    for key in context.config.model.architecture:
        if key not in known:
            raise ConfigError(f"model.architecture.{key}: LlamaConfig has no such key.{did_you_mean(key, known)}")
    set_seed(context.config.seed)
    stops = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    try:
        config = LlamaConfig(**{"vocab_size": len(tokenizer), **stops, **context.config.model.architecture})
        model = LlamaForCausalLM(config)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"model.architecture: LlamaConfig refuses it: {' '.join(str(error).split())}") from error
    model.generation_config = GenerationConfig(**stops)
    return model


def _take(context: StageContext, settings: ModelSettings) -> StageReport:
    """Take a checkpoint from a folder or the Hub, check that the chain can be built on it, and save it as ours."""
    from transformers import set_seed

    folder = fetch(settings)
    check_place(folder, settings)
    model, tokenizer = checkpoint.load(folder, settings)
    require_unpacked(model, folder)
    adjusted = [*note_part(folder, model), *note_packed(folder)]
    check_loaded(model, tokenizer, settings, folder)
    set_seed(context.config.seed)  # rows of new tokens are drawn
    adjusted += _adjust(model, tokenizer, settings)
    contracts.check_reads(model, text_probe(tokenizer))
    for note in adjusted:
        context.console.line(f"  {context.stage}: {note}")
    check_and_save(context, TrainResult(model), tokenizer, probe=text_probe(tokenizer))
    source = {**describe(settings), "role": "base model", "revision": settings.revision, "rows": None}
    metrics = {"parameters": model.num_parameters(), "steps": 0}
    return StageReport(metrics=metrics, sources=[{**source, "adjusted": adjusted}])


def tokenizer_of(place: Path, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """Return the tokenizer that the chain will have, with what this stage makes of it; no weight is loaded.

    Raises ContractError for what cannot be put right, as the stage itself would.
    """
    model, tokenizer = checkpoint.load_skeleton(place, settings), checkpoint.load_tokenizer(place, settings)
    _adjust(model, tokenizer, settings)
    return tokenizer


def _adjust(model: Any, tokenizer: PreTrainedTokenizerBase, settings: ModelSettings) -> list[str]:
    """Make a checkpoint trainable as it was published, in place. Return what was changed, a line each.

    Raises ContractError for what cannot be put right.
    """
    notes = []
    contracts.check_decoder(model)
    try_tokenizer(tokenizer)
    rows, known = model.get_input_embeddings().weight.shape[0], num_ids(tokenizer)
    if known > rows and all(token in tokenizer.added_tokens_decoder for token in range(rows, known)):
        add_rows(model, rows, known)
        notes.append(f"{known - rows} tokens without a row got one")
    contracts.check_vocabulary(model, tokenizer)
    if added := add_tokens(tokenizer, settings):
        add_rows(model, known, num_ids(tokenizer))
        notes.append(f"{added} new tokens")
    notes += [*require_end(model, tokenizer), *_choose_template(model, tokenizer, settings.chat_template)]
    notes += settle(model, tokenizer)
    require_trainable_template(tokenizer)
    contracts.check_stop_tokens(model, tokenizer)
    return notes


def _choose_template(model: Any, tokenizer: PreTrainedTokenizerBase, asked: str) -> list[str]:
    """Give the tokenizer the chat template that is asked for, or one where it has none, with a place for a system turn.

    Where a template writes a system turn of its own, it goes on doing so.
    """
    notes = []
    if isinstance(tokenizer.chat_template, dict):  # by name, such as one for calls of tools
        tokenizer.chat_template = tokenizer.chat_template.get("default")
        notes.append("of its several chat templates only the default one is kept, as conversations are written in it")
    if asked == "own" and not tokenizer.chat_template:
        asked = "chatml" if knows_chatml(tokenizer) else "plain"
        why = "whose tokens it has" if asked == "chatml" else f"whose turns end in {tokenizer.eos_token!r}"
        notes.append(f"no chat template of its own; it gets {asked}, {why}")
    if asked == "chatml":
        give_chatml(tokenizer, model)
    elif asked == "plain":
        tokenizer.chat_template = PLAIN
    if not takes_system(tokenizer):
        tokenizer.chat_template = FOLD_SYSTEM + tokenizer.chat_template
        notes.append("its chat template has no system turn; the text of one begins the user's first turn")
    if not opens_turn(tokenizer):
        notes.append(
            "its chat template does not begin the assistant's turn in a prompt, so the head of it is learned too"
        )
    return notes
