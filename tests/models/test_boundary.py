"""A checkpoint folder that is broken, foreign or made to hurt ends in one sentence, as early as it can be seen."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import ModelSettings
from common.errors import RecipeError
from common.models import checkpoint
from common.models.boundary import explain_loading, explain_panics
from common.models.source import check_local, digest_checkpoint
from common.stages.base import tokenizer_of
from tests.models.breaking import (
    CONFIG,
    DEEP,
    GENERATION,
    INDEX,
    TOKENIZER,
    TOKENS,
    UP,
    WEIGHTS,
    Break,
    cut,
    entry,
    gguf,
    header,
    index,
    instead,
    longer,
    put,
    renamed,
    template,
    weights,
    write,
)
from tests.models.test_contracts import build

Case = tuple[Break, str]  # and the sentence, of which this is a part


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "model"
    model, tokenizer = build()
    checkpoint.save(model, tokenizer, folder, "float32")
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def _overlap(tensors: dict[str, Any]) -> None:
    places = {name: facts["data_offsets"] for name, facts in tensors.items() if name != "__metadata__"}
    first, second = sorted(places, key=places.__getitem__)[:2]
    size = tensors[second]["data_offsets"][1] - tensors[second]["data_offsets"][0]
    begin = tensors[first]["data_offsets"][0]
    tensors[second]["data_offsets"] = [begin, begin + size]


def _twice(tensors: dict[str, Any]) -> bytes:
    return (json.dumps(tensors)[:-1] + f', "{UP}": {json.dumps(tensors[UP])}}}').encode()


def _long(length: int) -> Break:
    return lambda folder: (folder / WEIGHTS).write_bytes(
        length.to_bytes(8, "little") + (folder / WEIGHTS).read_bytes()[8:]
    )


# What a plan sees: the files alone, without another library.
PLANNED: dict[str, Case] = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "holds no *.safetensors"),
    "weights of no bytes": (write(WEIGHTS, b""), f"{WEIGHTS} is no whole safetensors file: its header would have 0"),
    "header of 2**63 bytes": (_long(2**63), f"{WEIGHTS} is no whole safetensors file: its header would have 9,223,"),
    "header of 2**40 bytes": (_long(2**40), "its header would have 1,099,511,627,776 bytes"),
    "header of brackets": (header(lambda _: DEEP.encode()), f"{WEIGHTS} is no whole safetensors file: more than 100"),
    "header that is a list": (header(lambda _: []), "its header is no JSON object"),
    "header with NaN": (header(lambda _: b'{"a": NaN}'), "NaN is no number"),
    "header that is not UTF-8": (header(lambda _: b'{"\xff": 1}'), f"{WEIGHTS} is no whole safetensors file"),
    "header of no tensors": (header(lambda _: {}), "goes on behind its last tensor"),
    "weights cut short": (cut(WEIGHTS), "is cut short"),
    "weights with more behind": (longer(WEIGHTS), "goes on behind its last tensor"),
    "tensors over each other": (header(_overlap), "overlaps"),
    "a tensor twice": (header(_twice), f"key '{UP}' is given twice"),
    "unknown dtype": (entry(dtype="Q7"), f"the tensor {UP} is of no known type"),
    "dtype that is a number": (entry(dtype=7), f"the tensor {UP} is of no known type"),
    "no dtype": (entry(dtype=None), f"the tensor {UP} is of no known type"),
    "shape that does not fit": (entry(shape=[3, 3]), f"the tensor {UP} of shape [3, 3] in F32 does not fill its place"),
    "negative shape": (entry(shape=[-3, 3]), "a shape or a place that is no list of whole numbers"),
    "shape of true": (entry(shape=[True]), "a shape or a place that is no list of whole numbers"),
    "shape beyond memory": (entry(shape=[2**62, 2**62]), "does not fill its place"),
    "no shape": (entry(shape=None), "a shape or a place that is no list of whole numbers"),
    "offsets before the start": (entry(data_offsets=[-8, 0]), "a shape or a place that is no list of whole numbers"),
    "offsets in reverse": (entry(data_offsets=[64, 0]), "does not fill its place"),
    "metadata that is a list": (header(lambda t: t.update(__metadata__=[1])), "__metadata__ is no object of texts"),
    "weights that are a folder": (instead(WEIGHTS, Path.mkdir), f"{WEIGHTS} is no file"),
    "weights that are a pipe": (instead(WEIGHTS, os.mkfifo), f"{WEIGHTS}: it is a named pipe"),
    "weights that lead in a circle": (instead(WEIGHTS, lambda p: p.symlink_to(p.name)), f"{WEIGHTS} cannot be read"),
    "weights that lead to nothing": (instead(WEIGHTS, lambda p: p.symlink_to("/none")), f"{WEIGHTS} cannot be read"),
    "an empty index": (write(INDEX, ""), f"{INDEX}: not valid JSON"),
    "an index that is a list": (write(INDEX, "[]"), f"{INDEX} is no index of weights"),
    "an index of brackets": (write(INDEX, DEEP), f"{INDEX}: not valid JSON: more than 100"),
    "an index without a map": (write(INDEX, "{}"), f"{INDEX} is no index of weights"),
    "an index of nothing": (index(), f"{INDEX} is no index of weights"),
    "an index of numbers": (index(a=3), f"{INDEX} puts the tensor a in '3'"),
    "an index of two kinds": (index(a=3, b=WEIGHTS), f"{INDEX} puts the tensor a in '3'"),
    "an index of lists": (index(a=[WEIGHTS]), f"{INDEX} puts the tensor a in"),
    "an index that leads outside": (index(a=f"../other/{WEIGHTS}"), f"{INDEX} puts the tensor a in '../other"),
    "an index with a path": (index(a="/etc/passwd"), f"{INDEX} puts the tensor a in '/etc/passwd'"),
    "an index of a shard that is not there": (index(a="b.safetensors"), "lacks b.safetensors"),
    "an index of another model": (index(**{"transformer.h.0": WEIGHTS}), f"{WEIGHTS} has no tensor that"),
    "an index with NaN": (write(INDEX, '{"metadata": {"total_size": NaN}}'), f"{INDEX}: not valid JSON: NaN"),
    "an index of endless digits": (write(INDEX, f'{{"a": {"9" * 9999}}}'), "index.json: not valid JSON: 999"),
    "an index that is a folder": (instead(INDEX, Path.mkdir), f"{INDEX} is no file"),
    "no config": (lambda f: (f / CONFIG).unlink(), "is no checkpoint: config.json is missing"),
    "an empty config": (write(CONFIG, ""), f"{CONFIG}: not valid JSON"),
    "a config that is a list": (write(CONFIG, "[]"), f"{CONFIG} holds []; expected a JSON object with the settings of"),
    "a config that is null": (write(CONFIG, "null"), f"{CONFIG} holds None; expected a JSON object"),
    "a config cut short": (cut(CONFIG), f"{CONFIG}: not valid JSON"),
    "a config of brackets": (write(CONFIG, '{"a":' * 100_000), f"{CONFIG}: not valid JSON: more than 100"),
    "a config that is not UTF-8": (write(CONFIG, b'{"model_type": "\xff"}'), f"{CONFIG}: byte 16 is not UTF-8"),
    "a config of megabytes": (put(CONFIG, x="y" * 2_000_000), f"{CONFIG} has 2,0"),
    "a config that is a folder": (instead(CONFIG, Path.mkdir), f"{CONFIG} is no file"),
    "a size as text": (put(CONFIG, hidden_size="64"), f"{CONFIG}: hidden_size is '64'; expected a whole number from 1"),
    "a negative size": (put(CONFIG, num_attention_heads=-4), "num_attention_heads is -4; expected a whole number"),
    "no heads": (put(CONFIG, num_key_value_heads=0), "num_key_value_heads is 0; expected a whole number"),
    "half a size": (put(CONFIG, vocab_size=32.5), "vocab_size is 32.5; expected a whole number"),
    "true for a size": (put(CONFIG, head_dim=True), "head_dim is True; expected a whole number"),
    "no layer": (put(CONFIG, num_hidden_layers=0), "num_hidden_layers is 0; expected a whole number from 1 to 10,000"),
    "layers without end": (put(CONFIG, num_hidden_layers=10**9), "num_hidden_layers is 1000000000; expected"),
    "layers without end, of a part": (
        put(CONFIG, text_config={"num_hidden_layers": 10**9}), "text_config.num_hidden_layers is 1000000000; expected"
    ),
    "an encoder": (put(CONFIG, is_encoder_decoder=True), "the model has an encoder (is_encoder_decoder); expected one"),
    "words that are hidden": (put(CONFIG, architectures=["BertForMaskedLM"]), "in both directions (BertForMaskedLM)"),
    "a length as a list": (put(CONFIG, max_position_embeddings=[64]), "max_position_embeddings is [64]; expected"),
    "eps that is NaN": (put(CONFIG, rms_norm_eps=math.nan), "rms_norm_eps is nan; expected a number from 0 on"),
    "a negative eps": (put(CONFIG, rms_norm_eps=-1.0), "rms_norm_eps is -1.0; expected a number from 0 on"),
    "ties that are a text": (put(CONFIG, tie_word_embeddings="yes"), "tie_word_embeddings is 'yes'; expected true"),
    "a model type of its own kind": (put(CONFIG, model_type=["llama"]), "model_type is ['llama']; expected a text"),
    "a type of numbers as a list": (put(CONFIG, dtype=["float32"]), "dtype is ['float32']; expected a text"),
    "quantised in no known way": (put(CONFIG, quantization_config={}), "quantization_config is {}; expected an object"),
    "attention that is returned": (put(CONFIG, output_attentions=True), "output_attentions is True; expected false"),
    "architectures as text": (put(CONFIG, architectures="X"), "architectures is 'X'; expected a list of names"),
    "a stop token as text": (put(GENERATION, eos_token_id="x"), f"{GENERATION}: eos_token_id is 'x'; expected the"),
    "a stop token beyond": (put(GENERATION, eos_token_id=[1, 2**31 - 1]), "names the token 2,147,483,647"),
    "a stop token beyond, in config.json": (put(CONFIG, pad_token_id=2**30), f"{CONFIG}: pad_token_id names the token"),
    "stop tokens as lists": (put(GENERATION, eos_token_id=[[1]]), "eos_token_id is [[1]]; expected the place"),
    "padding as a list": (put(GENERATION, pad_token_id=[1]), "pad_token_id is [1]; expected a whole number"),
    "a generation config that is a list": (write(GENERATION, "[]"), f"{GENERATION} holds []; expected a JSON object"),
    "a token as a number": (put(TOKENIZER, pad_token=7), f"{TOKENIZER}: pad_token is 7; expected a text"),
    "a token without content": (put(TOKENIZER, eos_token={"a": 1}), "eos_token is {'a': 1}; expected a text"),
    "a length that is NaN": (put(TOKENIZER, model_max_length=math.nan), "model_max_length is nan; expected a number"),
    "a negative length": (put(TOKENIZER, model_max_length=-5), "model_max_length is -5; expected a number above 0"),
    "added tokens as a number": (put(TOKENIZER, added_tokens_decoder=3), "added_tokens_decoder is 3; expected an"),
    "an added token at -3": (put(TOKENIZER, added_tokens_decoder={"-3": {"content": "a"}}), "expected an object from"),
    "a template as a number": (template(7), "chat_template is 7; expected a template as text"),
    "templates that are numbers": (template([1]), "chat_template is [1]; expected a template as text"),
    "a template of megabytes": (template("x" * 2_000_000), "expected a template as text of at most 1,048,576"),
    "a tokenizer that leads nowhere": (instead(TOKENS, lambda p: p.symlink_to("/none")), f"{TOKENS} cannot be read"),
    "a stray link in a circle": (lambda f: (f / "x.json").symlink_to("x.json"), "x.json cannot be read"),
    "an index of pickles, of brackets": (
        renamed(WEIGHTS, "pytorch_model.bin", ("pytorch_model.bin.index.json", DEEP)), "index.json: not valid JSON"
    ),
    "an adapter beside the model": (write("adapter_config.json", "{}"), "makes this folder an adapter"),
    "GGUF of nothing": (gguf(lambda _: b""), "model.gguf is no whole GGUF file"),
    "GGUF of another magic": (gguf(lambda data: b"GGML" + data[4:]), "model.gguf is no whole GGUF file"),
    "GGUF of 2**60 tensors": (gguf(lambda data: data[:8] + bytes([0] * 7 + [16]) + data[16:]), "no whole GGUF file"),
    "GGUF cut short": (gguf(lambda data: data[: len(data) * 9 // 10]), "model.gguf is cut short"),
}  # fmt: skip
# What a run sees before its first stage: how libraries take the configuration and the tokenizer.
TRIED: dict[str, Case] = {
    "unknown model type": (put(CONFIG, model_type="frob"), "model type `frob`"),
    "a model without text": (put(CONFIG, model_type="clip"), "model_type clip_text_model is nothing that"),
    "heads that do not divide": (put(CONFIG, num_attention_heads=5), "not a multiple of the number of attention heads"),
    "unknown activation": (put(CONFIG, hidden_act="frob"), "frob"),
    "unknown rope": (put(CONFIG, rope_scaling="yes"), "rope_parameters"),
    "a rope of text": (put(CONFIG, rope_parameters={"rope_type": "default", "rope_theta": "x"}), "unsupported operand"),
    "a vocabulary smaller than the table": (
        put(CONFIG, vocab_size=100), f"{WEIGHTS}: the tensor model.embed_tokens.weight has the shape"
    ),
    "a hidden size of another model": (put(CONFIG, hidden_size=10**9, head_dim=8), "has the shape"),
    "a tokenizer cut short": (cut(TOKENS), "The tokenizer of"),
    "a tokenizer that is a list": (write(TOKENS, "[]"), "The tokenizer of"),
    "a tokenizer without a model": (put(TOKENS, model=None), "The tokenizer of"),
    "a merge of unknown tokens": (put(TOKENS, model__merges=[["qqq", "rrr"]]), "Token `qqq` out of vocabulary"),
    "a token at -1": (put(TOKENS, model__vocab__zzz=-1), "The tokenizer of"),
    "a token far beyond the table": (put(TOKENS, model__vocab__zzz=99_999), "token id 99999 has no embedding row"),
    "a pattern that is none": (
        put(TOKENS, pre_tokenizer={
            "type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated", "invert": False,
        }),
        "Oniguruma error",
    ),
    "a pattern without end": (
        put(TOKENS, pre_tokenizer={
            "type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False,
        }), "retry-limit-in-match over",
    ),
    "a normaliser that eats all": (
        put(TOKENS, normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": ""}), "as no token at all"
    ),
    "a normaliser without end": (
        put(TOKENS, normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 5000}),
        "writes 'a' as 5,001 tokens",
    ),
    "a special token without text": (put(TOKENIZER, unk_token=""), "maximum recursion depth exceeded"),
    "several answers at once": (put(GENERATION, num_return_sequences=7), "num_return_sequences"),
    "a class that is no tokenizer": (put(TOKENIZER, tokenizer_class="LlamaConfig"), "is none but a LlamaConfig"),
    "names for inputs as a number": (put(TOKENIZER, model_input_names=3), "The tokenizer of"),
    "a template that divides": (template("{{ 1 / 0 }}"), "division by zero"),
    "a template that calls itself": (
        template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "maximum recursion depth exceeded"
    ),
    "a template that includes": (template("{% include 'x' %}"), "no loader for this environment"),
    "a template that adds a number": (template("{{ 'a' + 1 }}"), "The chat template refuses a question"),
    "a template with a mistake": (template("{% for x in %}"), "The chat template refuses a question"),
}  # fmt: skip
# What shows once the weights are read.
LOADED: dict[str, Case] = {
    "a missing tensor": (weights(lambda t: t.pop(UP)), f"lacks tensors of its model (1), such as {UP}"),
    "a renamed tensor": (weights(lambda t: t.update(a=t.pop(UP))), f"lacks tensors of its model (1), such as {UP}"),
    "more layers than weights": (put(CONFIG, num_hidden_layers=3), "lacks tensors of its model"),
    "weights of more layers": (
        weights(lambda t: t.update({UP.replace("0", "1"): t[UP].clone()})), "has more layers than its config.json says"
    ),
    "NaN": (weights(lambda t: t[UP][1].fill_(math.nan)), f"{UP} holds NaN in 16 of 512 places"),
    "infinity": (weights(lambda t: t[UP][1, 1:3].fill_(-math.inf)), f"{UP} holds infinity in 2 of 512 places"),
}  # fmt: skip
NEXT_STEPS = r"Copy|Give|Correct|Put|Save|Merge|Set|Use|Convert|Take|Train|Write|model\.chat_template|expected"


def sentence_of(found: pytest.ExceptionInfo[RecipeError], folder: Path, part: str) -> None:
    text = str(found.value)
    assert part in text
    assert "\n" not in text
    assert len(text.replace(str(folder), "")) < 500
    assert re.search(NEXT_STEPS, text), "a next step"


@pytest.mark.parametrize("name", PLANNED)
def test_a_broken_file_is_named_by_the_plan(folder: Path, name: str) -> None:
    change, part = PLANNED[name]
    change(folder)
    settings = ModelSettings(path=str(folder))
    with pytest.raises(RecipeError) as found:
        check_local(settings)
    sentence_of(found, folder, part)
    assert str(folder) in str(found.value)


@pytest.mark.parametrize("name", TRIED)
def test_what_a_library_refuses_is_a_sentence_before_the_first_stage(folder: Path, name: str) -> None:
    change, part = TRIED[name]
    change(folder)
    settings = ModelSettings(path=str(folder))
    check_local(settings)
    with pytest.raises(RecipeError) as found:
        tokenizer_of(folder, settings)
    sentence_of(found, folder, part)


@pytest.mark.parametrize("name", LOADED)
def test_weights_that_are_no_model_are_refused_when_they_are_read(folder: Path, name: str) -> None:
    change, part = LOADED[name]
    change(folder)
    with pytest.raises(RecipeError) as found:
        checkpoint.load_model(folder, ModelSettings(path=str(folder)))
    sentence_of(found, folder, part)


def test_what_is_odd_and_usable_is_taken(folder: Path) -> None:
    put(TOKENIZER, model_max_length=1e30)(folder)
    put(CONFIG, pad_token_id=-1, time_step_limit=[0.0, math.inf])(folder)
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")  # as a cache of the Hub does
    settings = ModelSettings(path=str(folder))
    check_local(settings)
    assert digest_checkpoint(settings)["files"].keys() >= {WEIGHTS, CONFIG}
    tokenizer_of(folder, settings)
    checkpoint.load_model(folder, settings)


class PanicException(BaseException):  # as the bindings of Rust call it
    pass


def test_a_library_is_explained_and_a_mistake_of_ours_is_not(tmp_path: Path) -> None:
    def explained(error: BaseException) -> None:
        with explain_loading("tokenizer of", tmp_path):
            raise error

    for error in (Exception("broken"), OSError("gone"), PanicException("no regex")):
        with pytest.raises(RecipeError, match=r"^The tokenizer of .* cannot be loaded: .*\. Copy or download it again"):
            explained(error)
    with pytest.raises(KeyboardInterrupt):
        explained(KeyboardInterrupt())
    with pytest.raises(MemoryError):
        explained(MemoryError())
    settings: Any = None
    with pytest.raises(AttributeError), explain_loading("tokenizer of", tmp_path):
        checkpoint.load_tokenizer(tmp_path, settings)
    with pytest.raises(RecipeError, match=r"^Stage sft: the tokenizer fails on a text"), explain_panics("Stage sft"):
        raise PanicException("retry-limit-in-match over")
