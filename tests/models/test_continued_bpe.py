"""New tokens shorten the words they were learned from, and change nothing else, for every kind of tokenizer."""

from __future__ import annotations

import random
from typing import Any

import pytest

from common.config.schema import ModelSettings
from common.errors import ConfigError
from common.models.continued_bpe import learn, require_extensible
from common.models.learned_tokens import Learned
from common.models.special_tokens import num_ids
from common.models.vocabulary import extend_tokenizer
from tests.models.tokenizers import KINDS, WORDS

SETTINGS = ModelSettings(path="owner/name", revision="0" * 40)
DOMAIN = ["Hepatocellular carcinoma, hepatocellular; hépatite, 漢字漢字 и печень 1234 1234."] * 30
OTHER = [*WORDS, "a turn of the user said 漢 <think> й, 12 34\n\n\tend 🙂", "מה שהמשתמש אמר ở đây", "x" * 40, " ", ""]


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(kind: str) -> Any:
    return KINDS[kind]()


@pytest.fixture
def learned(tokenizer: Any) -> Learned:
    return learn(tokenizer, DOMAIN, add=80, min_frequency=20)


def test_words_of_the_domain_become_fewer_tokens(kind: str, tokenizer: Any, learned: Learned) -> None:
    extended = extend_tokenizer(tokenizer, learned, SETTINGS)
    assert num_ids(extended) == num_ids(tokenizer) + len(learned.pieces)
    for word in ("hepatocellular",) if kind == "unigram" else ("hepatocellular", "hépatite", "печень"):
        before, after = ids(tokenizer, f"a {word} a"), ids(extended, f"a {word} a")
        assert len(after) <= len(before) - 4
        assert extended.decode(after) == tokenizer.decode(before) == f"a {word} a"


def test_other_text_is_cut_as_before(tokenizer: Any, learned: Learned) -> None:
    extended, known = extend_tokenizer(tokenizer, learned, SETTINGS), num_ids(tokenizer)
    letters, seeded = "abcdefghij klmnop, qrstuvwxyz.\n", random.Random(0)
    texts = [*OTHER, *("".join(seeded.choices(letters, k=60)) for _ in range(200))]
    untouched = [text for text in texts if max(ids(extended, text), default=0) < known]
    assert len(untouched) > 20
    for text in untouched:
        assert ids(extended, text) == ids(tokenizer, text)


def test_a_new_token_stands_for_its_pieces(tokenizer: Any, learned: Learned) -> None:
    extended = extend_tokenizer(tokenizer, learned, SETTINGS)
    names = tokenizer.convert_ids_to_tokens
    for name, pieces in learned.pieces.items():
        assert max(pieces) < num_ids(tokenizer)
        if tokenizer.unk_token_id not in pieces and not any(one.startswith("<0x") for one in names(list(pieces))):
            assert "".join(names(list(pieces))) == name
    text = "carcinoma, hepatocellular; hepatocellular 1234"
    made = [(one, learned.pieces.get(extended.convert_ids_to_tokens(one), (one,))) for one in ids(extended, text)]
    assert [old for _, pieces in made for old in pieces] == ids(tokenizer, text)


@pytest.mark.parametrize("kind", ["qwen", "llama"])
def test_every_text_comes_back(tokenizer: Any, learned: Learned) -> None:
    extended = extend_tokenizer(tokenizer, learned, SETTINGS)
    for text in (*DOMAIN[:1], "hépatite; печени; 漢字, مرحبا, שלום, नमस्ते, สวัสดี, ሰላም 🙂\t\n  end", *WORDS):
        assert extended.decode(ids(extended, text)) == text


def test_added_tokens_keep_their_ids_and_places(tokenizer: Any, learned: Learned) -> None:
    extended = extend_tokenizer(tokenizer, learned, SETTINGS)
    assert extended.get_added_vocab() == tokenizer.get_added_vocab()
    for name in tokenizer.get_added_vocab():
        assert ids(extended, name) == ids(tokenizer, name)
    specials = [
        token for token in ids(extended, "a<|im_end|>a") if token == tokenizer.convert_tokens_to_ids("<|im_end|>")
    ]
    assert len(specials) == 1


def test_no_new_token_holds_a_word_and_what_stands_behind_it(kind: str, tokenizer: Any) -> None:
    found = learn(tokenizer, ["what, what, what, 12 12"] * 40, add=80, min_frequency=20).pieces
    assert found
    assert not [name for name in found if "," in name and name.strip("Ġ▁") != ","]
    if kind != "qwen":
        assert not [name for name in found if any(map(str.isdigit, name))]


def test_equal_texts_give_equal_tokens_in_any_order(tokenizer: Any, learned: Learned) -> None:
    again = learn(tokenizer, list(reversed([*DOMAIN, ""])), add=80, min_frequency=20)
    assert list(again.pieces.items()) == list(learned.pieces.items())
    assert again == learned


def test_it_adds_no_more_than_is_asked_and_nothing_that_is_rare(tokenizer: Any, learned: Learned) -> None:
    fewer = learn(tokenizer, DOMAIN, add=5, min_frequency=20)
    assert 0 < len(fewer.pieces) <= 5 < len(learned.pieces)
    assert learn(tokenizer, DOMAIN, add=80, min_frequency=1000).pieces == {}
    assert list(learn(tokenizer, ["qz"] * 20, add=80, min_frequency=20).pieces) != []
    assert list(learn(tokenizer, ["qz"] * 19, add=80, min_frequency=20).pieces) == []


def test_missing_letters_come_first_and_start_from_their_bytes() -> None:
    tokenizer = KINDS["llama"]()
    found = learn(tokenizer, ["漢"] * 30, add=80, min_frequency=20).pieces
    assert next(iter(found.items())) == ("漢", tuple(tokenizer.convert_tokens_to_ids(["<0xE6>", "<0xBC>", "<0xA2>"])))
    assert found["▁漢"] == (tokenizer.convert_tokens_to_ids("▁"), *found["漢"])


def test_a_pair_that_makes_an_old_token_is_passed_over() -> None:
    """Of abc the tokenizer knows how to come by it from a and bc alone, and cuts it into ab and c."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {name: place for place, name in enumerate(["a", "b", "c", "d", "ab", "bc", "abc", "cd"])}
    core = Tokenizer(models.BPE(vocab=names, merges=[("a", "b"), ("b", "c"), ("a", "bc")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert tokenizer.tokenize("abcd") == ["ab", "c", "d"]
    found = learn(tokenizer, ["abcd"] * 30, add=80, min_frequency=20)
    assert found.pieces == {}
    found = learn(tokenizer, ["abd"] * 30, add=80, min_frequency=20)
    assert (found.pieces, found.merges) == ({"abd": (4, 3)}, [("ab", "d")])


def test_kinds_that_cannot_be_extended_are_refused_with_those_that_can() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = {"[UNK]": 0, "a": 1, "b": 2}
    others = {
        "its model is WordPiece": models.WordPiece(pieces, unk_token="[UNK]"),
        "its model is WordLevel": models.WordLevel(pieces, unk_token="[UNK]"),
        "its BPE marks words by end_of_word_suffix": models.BPE(pieces, [], end_of_word_suffix="</w>"),
        "its BPE marks words by continuing_subword_prefix": models.BPE(pieces, [], continuing_subword_prefix="##"),
    }
    for why, model in others.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="[UNK]")
        expected = (
            rf"^Stage words cannot extend .*: {why}\. Supported are BPE on bytes, BPE of SentencePiece, and Unigram"
        )
        with pytest.raises(ConfigError, match=expected):
            require_extensible(tokenizer, "words")


def test_a_tokenizer_written_in_python_is_refused() -> None:
    class Slow:
        """A tokenizer without a backend in Rust."""

    with pytest.raises(ConfigError, match=r"it is a Slow without a tokenizer\.json of the library tokenizers"):
        require_extensible(Slow(), "words")
