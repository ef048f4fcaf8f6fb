"""Publishing: a version that loads and answers, taken once, refused when it is not whole, and ready for the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from common.config.schema import Config
from common.config.stages import PublishSettings
from common.errors import ConfigError, ContractError, DataError
from common.report.card import USAGE
from common.stage import StageContext
from common.stages import publish
from common.store.artifacts import Artifact, Store, digest_file, fingerprint_of

Make = Callable[..., StageContext]
MODEL = {
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"weights" * 50,
    "mergekit.yaml": b"merge_method: linear\n",
    "log.jsonl": b'{"loss": 1.0}\n',
    "optimizer/model.safetensors": b"not a weight of the model",
}
CARD = {"README.md": b"# card\n", "summary.json": b"{}", "card.json": b"{}", "loss.png": b"1", "exam.png": b"2"}
RUN = {"domain": "medical", "profile": "tiny", "pipeline": "full", "model": {"architecture": {"hidden_size": 8}}}
PUBLISHED = sorted([*MODEL, *CARD])
PUBLISHED.remove("log.jsonl")
PUBLISHED.remove("optimizer/model.safetensors")


def commit(root: Path, stage: str, kind: str, files: dict[str, bytes], **manifest: Any) -> Artifact:
    store = Store(root)
    store.artifacts.mkdir(parents=True, exist_ok=True)
    out = root / "out" / stage
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    fingerprint = fingerprint_of({"stage": stage, "files": [len(c) for c in files.values()], "more": str(manifest)})
    return store.commit(stage, fingerprint, out, {"stage": stage, "kind": kind, "fingerprint": fingerprint, **manifest})


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function (model files, card files, **settings) -> the context of a publish stage."""

    def build(model: dict[str, bytes] = MODEL, card: dict[str, bytes] = CARD, **settings: Any) -> StageContext:
        made = commit(tmp_path, "merge", "merge", model)
        facts = {"merge": {"stage": "merge", "fingerprint": made.fingerprint, "digest": made.digest}}
        told = commit(tmp_path, "card", "card", card, inputs=facts, metrics={"published": "merge"})
        return context_of(tmp_path, made, told, **settings)

    return build


def context_of(root: Path, model: Artifact, card: Artifact, run: str = "tiny/full", **settings: Any) -> StageContext:
    out, work = root / "publish-out", root / "publish-work"
    for folder in (out, work):
        folder.mkdir(exist_ok=True)
    stage = PublishSettings(**settings)
    config = Config.model_validate({**RUN, "stages": {"publish": stage}})
    inputs = {"merge": model, "card": card}
    return StageContext(
        stage="publish",
        kind="publish",
        settings=stage,
        config=config,
        inputs=inputs,
        parent="merge",
        corpus=None,  # type: ignore[arg-type]  # publishing reads no data
        out=out,
        work=work,
        models=root / "models",
        console=None,  # type: ignore[arg-type]  # and shows no progress
        run=run,
    )


def published(context: StageContext) -> dict[str, Any]:
    publish.run(context)
    result: dict[str, Any] = json.loads((context.out / "published.json").read_text())
    return result


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_version_holds_model_and_card_and_no_log(make: Make) -> None:
    context = make()
    result = published(context)
    folder = context.models / "medical" / "v1"
    assert names(folder) == sorted([*PUBLISHED, "publish.json"])
    assert (result["to"], result["version"], result["path"]) == ("local", "v1", "models/medical/v1")
    assert result["files"] == {name: digest_file(folder / name) for name in PUBLISHED}
    record = json.loads((folder / "publish.json").read_text())
    assert (record["domain"], record["version"]) == ("medical", "v1")
    assert record["model"]["digest"] == context.parent_artifact.digest
    assert record["files"] == result["files"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["latest", "v1"]


def test_the_stage_that_the_card_chose_is_published_in_the_place_of_the_named_one(tmp_path: Path) -> None:
    model, other = (
        commit(tmp_path, "merge", "merge", MODEL),
        commit(tmp_path, "dpo", "dpo", {**MODEL, "config.json": b"[]"}),
    )
    facts = {m.stage: {"stage": m.stage, "fingerprint": m.fingerprint, "digest": m.digest} for m in (model, other)}
    told = commit(tmp_path, "card", "card", CARD, inputs=facts, metrics={"published": "dpo"})
    context = context_of(tmp_path, model, told)
    context.inputs["dpo"] = other
    published(context)
    assert (context.models / "medical" / "latest" / "config.json").read_bytes() == b"[]"
    assert json.loads((context.models / "medical" / "v1" / "publish.json").read_text())["model"]["stage"] == "dpo"


def test_a_model_of_unknown_licence_does_not_go_to_the_hub(tmp_path: Path) -> None:
    model = commit(tmp_path, "merge", "merge", MODEL)
    told = commit(tmp_path, "card", "card", CARD, metrics={"published": "merge", "licence": "unknown"})
    with pytest.raises(ConfigError, match=r"publish\.to=hub:acme/med: the licence of the base model or of its data"):
        publish.run(context_of(tmp_path, model, told, to="hub:acme/med"))
    assert published(context_of(tmp_path, model, told))["version"] == "v1"


def test_latest_is_a_relative_link_that_moves(make: Make, tmp_path: Path) -> None:
    published(make())
    latest = tmp_path / "models" / "medical" / "latest"
    assert latest.readlink() == Path("v1")
    published(make(card={**CARD, "README.md": b"# another card\n"}))
    assert latest.readlink() == Path("v2")
    assert (latest / "README.md").read_bytes() == b"# another card\n"


def test_latest_belongs_to_a_run_and_another_moves_it_only_when_asked(make: Make, tmp_path: Path) -> None:
    latest, other = tmp_path / "models" / "medical" / "latest", {**CARD, "README.md": b"# another run's card\n"}
    published(make())
    report = publish.run(make(card=other, run="tiny/sft-only"))
    assert (report.metrics["version"], report.metrics["latest"]) == ("v2", "v1")
    assert latest.readlink() == Path("v1")
    report = publish.run(make(card=other, run="tiny/sft-only", latest=True))
    assert (report.metrics["version"], report.metrics["latest"]) == ("v2", "v2")
    assert latest.readlink() == Path("v2")
    published(make())
    assert latest.readlink() == Path("v2")  # it belongs to the other run now
    latest.unlink()
    published(make())
    assert latest.readlink() == Path("v1")


def test_a_version_from_before_runs_had_names_gives_latest_up(make: Make, tmp_path: Path) -> None:
    latest = tmp_path / "models" / "medical" / "latest"
    published(make(run=""))
    published(make(card={**CARD, "README.md": b"# another card\n"}))
    assert latest.readlink() == Path("v2")


def test_the_same_model_and_card_take_the_same_version(make: Make) -> None:
    assert published(make())["version"] == "v1"
    assert published(make(model={**MODEL, "model.safetensors": b"others"}))["version"] == "v2"
    context = make()
    assert published(context)["version"] == "v1"
    assert (context.models / "medical" / "latest").readlink() == Path("v1")


def test_a_damaged_version_is_not_taken_and_not_overwritten(make: Make) -> None:
    context = make()
    published(context)
    weights = context.models / "medical" / "v1" / "model.safetensors"
    weights.write_bytes(b"WEIGHTS" * 50)
    assert published(context)["version"] == "v2"
    assert weights.read_bytes() == b"WEIGHTS" * 50


def test_a_folder_of_somebody_else_keeps_its_number(make: Make) -> None:
    context = make()
    (context.models / "medical" / "v4").mkdir(parents=True)
    (context.models / "medical" / "v4" / "publish.json").write_text("[]")
    (context.models / "medical" / "v05").mkdir()
    assert published(context)["version"] == "v5"


def test_a_number_taken_meanwhile_gives_the_next_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make()
    known = publish._versions

    def look(folder: Path) -> list[int]:
        """Another run publishes right after the first look-up."""
        found = known(folder)
        if not found:
            (folder / "v1").mkdir()
            (folder / "v1" / "theirs").write_text("x")
        return found

    monkeypatch.setattr(publish, "_versions", look)
    assert published(context)["version"] == "v2"
    assert names(context.models / "medical" / "v1") == ["theirs"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"WEIGHTS" * 50, "sha256 is"), (b"short", "it has 5 bytes, its manifest says 350")]
)
def test_a_copy_that_differs_from_its_manifest_is_not_published(make: Make, content: bytes, words: str) -> None:
    context = make()
    (context.parent_artifact.path / "model.safetensors").write_bytes(content)
    with pytest.raises(ContractError, match=f"model.safetensors was not published: .*{words}"):
        publish.run(context)
    assert list((context.models / "medical").iterdir()) == []


def test_none_publishes_nothing(make: Make) -> None:
    context = make(to="none")
    assert published(context) == {"to": "none", "version": None, "path": None, "files": {}}
    assert not context.models.exists()


@pytest.mark.parametrize("to", ["locl", "hub:", "hub:name", "hub:a/b/c", "/srv/models"])
def test_a_target_that_does_not_exist_is_refused(make: Make, to: str) -> None:
    with pytest.raises(ConfigError, match=f"publish.to is '{to}', expected local, none or hub:<owner>/<name>"):
        publish.run(make(to=to))


class OfflineHub(HfApi):
    """The real client with its three requests answered here; what it prepares for them is its own."""

    def __init__(self, *, private: bool = True, files: tuple[str, ...] = (), error: Exception | None = None) -> None:
        super().__init__(token="hf_none", endpoint="http://127.0.0.1:9")
        self.private, self.files, self.error = private, files, error
        self.created: list[tuple[str, Any]] = []
        self.commits: list[list[CommitOperationAdd | CommitOperationDelete]] = []

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        if self.error:
            raise self.error
        self.created.append((repo_id, options["private"]))

    def model_info(self, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(private=self.private, siblings=[SimpleNamespace(rfilename=name) for name in self.files])

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> Any:
        self.commits.append(list(operations))
        return SimpleNamespace(oid="c0ffee")


def test_the_hub_gets_one_commit_with_card_and_weights(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    api = OfflineHub(files=("model-00001-of-00002.safetensors", "model.safetensors", "notes.md", ".gitattributes"))
    monkeypatch.setattr(publish, "hub_api", lambda repo: api)
    context = make(to="hub:acme/med")
    result = published(context)
    assert (result["to"], result["version"], result["path"]) == ("hub:acme/med", "c0ffee", "acme/med")
    assert api.created == [("acme/med", True)]
    assert len(api.commits) == 1
    added = {op.path_in_repo: op for op in api.commits[0] if isinstance(op, CommitOperationAdd)}
    assert sorted(added) == PUBLISHED
    assert {name: op.upload_info.sha256.hex() for name, op in added.items()} == result["files"]
    deleted = [op.path_in_repo for op in api.commits[0] if isinstance(op, CommitOperationDelete)]
    assert deleted == ["model-00001-of-00002.safetensors"]


def test_a_public_repository_is_not_used_for_a_private_model(make: Make) -> None:
    api = OfflineHub(private=False)
    with pytest.raises(ConfigError, match=r"'acme/med' exists and is public, and publish\.private is true"):
        publish.publish_to_hub(make(), "acme/med", private=True, api=api)
    assert api.commits == []
    publish.publish_to_hub(make(), "acme/med", private=False, api=api)
    assert len(api.commits) == 1


def test_without_a_token_the_hub_is_not_asked(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match=r"needs a Hub token and there is none\. Log in with `hf auth login`"):
        publish.run(make(to="hub:acme/med"))


def test_a_hub_that_cannot_be_reached_leaves_everything_here(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    context = make()
    api = HfApi(token="hf_none", endpoint="http://127.0.0.1:9")  # nothing listens: a real refused connection
    with pytest.raises(DataError, match=r"Nothing is lost: .* Run the same command again to retry") as caught:
        publish.publish_to_hub(context, "acme/med", private=True, api=api)
    assert names(context.work / "upload") == PUBLISHED
    assert str(context.work / "upload") in str(caught.value)


def test_a_token_that_may_not_write_says_how_to_log_in(make: Make) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    response: Any = SimpleNamespace(status_code=403, headers={}, request=None)
    refused = HfHubHTTPError("no", response=response)
    with pytest.raises(ConfigError, match=r"refused to write to 'acme/med' \(403\). Log in"):
        publish.publish_to_hub(make(), "acme/med", private=True, api=OfflineHub(error=refused))


def test_a_name_that_the_hub_does_not_allow_is_a_config_error(make: Make) -> None:
    api = HfApi(token="hf_none", endpoint="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="which the Hub does not allow"):
        publish.publish_to_hub(make(), "acme/a--b", private=True, api=api)


def tiny_model(folder: Path) -> dict[str, bytes]:
    """Save a real Llama of a few thousand weights with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "<end>"]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(special + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "<end>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_published_folder_loads_and_answers_as_its_card_says(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(model=tiny_model(tmp_path / "saved"))
    publish.run(context)
    monkeypatch.chdir(context.models / "medical" / "latest")
    said: dict[str, Any] = {"print": lambda text: said.update(answer=text)}
    exec(USAGE.removeprefix("```python\n").removesuffix("```"), said)
    num_new = said["output"].shape[1] - said["inputs"]["input_ids"].shape[1]
    assert isinstance(said["answer"], str)
    assert said["output"][0, -1] == 2 or num_new == 128  # it stopped by itself, or at the most that it may write
    prompt = said["tokenizer"].decode(said["inputs"]["input_ids"][0])
    assert prompt == "<s>user: Your question here<end><s>assistant: "
