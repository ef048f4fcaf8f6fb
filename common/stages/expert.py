"""Expert iteration: a checkpoint answers prompts, right answers are kept, it is fine-tuned on them, and so on.

Usage: named by a pipeline as `expert: {kind: expert, from: sft}`; a domain names its rewards in stages.yaml, and
`grpo: {kind: grpo, from: expert}` with `hard: 0.5` continues with prompts that are still seldom right.

Every round fine-tunes the stage before again, on all that was kept so far, as STaR does so as not to overfit (Zelikman
et al. 2022, arXiv 2203.14465, section 3.1). `restart: false` trains on from round to round. To sample, check, drop what
occurs again and leave hard prompts to GRPO is the method of Spark-Prover (arXiv 2511.13043). Some prompts never train:
they are answered greedily before the first round and after each. The best round is the stage's result.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from common.config.answering import ExpertSettings
from common.config.json import as_written, read_json
from common.config.kinds import Kind
from common.data.accounting import RowCount, check_limits
from common.errors import DataError
from common.evaluation.statistics import wilson
from common.models import checkpoint
from common.models.device import device_of
from common.models.rendering import encode_chat
from common.rewards.mix import Mix, check_stage_rewards
from common.rewards.reward_model import mix_of
from common.stage import StageContext, StageReport
from common.stages.sft import conversations
from common.store.artifacts import Artifact, flush, write_json, write_rows
from common.training import sampling
from common.training.adapters import FOLDER as ADAPTER
from common.training.adapters import load_parent
from common.training.fit import TrainResult, check_and_save, fit, merge_adapter, report
from common.training.rows.prompts import read_prompts
from common.training.rows.reader import SAMPLED_FILES

Row = dict[str, Any]
Facts = dict[str, Any]
DRAWN, WEIGHTS, DONE = "samples.jsonl", "model.safetensors", "round.json"  # of a round, in the order of writing


def run(context: StageContext) -> StageReport:
    """Return the parent, fine-tuned on right answers of its own."""
    settings = cast(ExpertSettings, context.settings)
    tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    rows, counts = read_prompts(context, tokenizer)
    check_limits(counts, settings.limits, context.stage)
    if len(rows) <= settings.heldout:
        raise DataError(
            f"Stage {context.stage} has {len(rows)} usable prompts and keeps {settings.heldout} from training "
            f"({context.stage}.heldout). Add prompts or lower it."
        )
    heldout, training = rows[: settings.heldout], rows[settings.heldout :][: settings.prompts]
    device = device_of(context.config.run)
    iteration = Iteration(context, settings, tokenizer, heldout, training, mix_of(context, settings, device), device)

    chosen, records = iteration.run()

    probe = encode_chat(tokenizer, training[0]["prompt"], prompt=True)
    log = _joined([record["log"] for record in records[1:]])
    rounds = [record["trained"] for record in records[1:]]
    steps, seconds, tokens = (sum(facts[key] for facts in rounds) for key in ("steps", "seconds", "tokens"))
    trained = TrainResult(iteration.model_of(chosen), log, steps, seconds, tokens)
    measured = check_and_save(context, trained, tokenizer, probe=probe)
    if chosen and settings.peft != "full":
        shutil.copytree(iteration.folder(chosen) / ADAPTER, context.out / ADAPTER)
    last = sampling.read_drawn(iteration.folder(settings.rounds) / DRAWN)
    write_rows(context.out / SAMPLED_FILES["prompts"], sampling.prompt_rows(last, settings.passing))
    metrics = {"chosen": chosen, "rounds": [record["facts"] for record in records], **measured}
    read = [RowCount(**row) for row in records[-1]["rows"]]
    return report(context, trained, metrics, [*counts, *read])


KIND = Kind(
    name="expert", settings=ExpertSettings, run=run, check=check_stage_rewards, roles=("prompts", "replay"),
    reads=("reward model",),
    phrase="expert iteration on its own right answers",
)  # fmt: skip


@dataclass
class Iteration:
    """The rounds of one stage. Each has a folder in the stage's scratch, whose `round.json` is written last.

    A run that was killed continues within its round: finished rounds are read, not made again.
    """

    context: StageContext
    settings: ExpertSettings
    tokenizer: Any
    heldout: Sequence[Row]
    training: Sequence[Row]
    mix: Mix
    device: str

    def run(self) -> tuple[int, list[Facts]]:
        """Return the best round, 0 for the parent, and the records of all rounds, 0 among them."""
        records: list[Facts] = []
        drawn: list[list[sampling.PromptSamples]] = []
        model = self.model_of(0)
        for number in range(self.settings.rounds + 1):
            folder = self.folder(number)
            folder.mkdir(parents=True, exist_ok=True)
            done = folder / DONE
            if number:
                drawn.append(self._drawn(model, number))
            if done.is_file():
                model = self.model_of(number)
            elif number == 0:
                write_json(done, {"facts": {"round": 0, **self._measure(model)}})
            else:
                start, model = None if self.settings.restart else model, None  # two models may not fit
                model, record = self._learned(start, number, drawn)
                record["facts"] = {"round": number, **self._measure(model), **record["facts"]}
                self._save(model, number)
                write_json(done, record)
                shutil.rmtree(folder / "trainer", ignore_errors=True)
            with as_written(done):
                records.append(read_json(done, strict=False))
                self._report(records[-1]["facts"])
        # Of rounds that are alike the last, which has learned from most.
        best = max(range(len(records)), key=lambda number: (records[number]["facts"]["right"], number))
        if best < self.settings.rounds:
            which = "the stage before" if best == 0 else f"round {best}"
            self.context.console.line(
                f"  {self.context.stage}: right answers to held-out prompts fell after {which}; its weights are kept",
                always=True,
            )
        return best, records

    def folder(self, number: int) -> Path:
        return self.context.work / f"round-{number}"

    def model_of(self, number: int) -> Any:
        """Return the model as it was after a round, on the device."""
        from safetensors.torch import load_model

        model, _ = checkpoint.load(self.context.parent_artifact.path, self.context.config.model)
        if number:
            load_model(model, str(self.folder(number) / WEIGHTS))
        return model.to(self.device)

    def _save(self, model: Any, number: int) -> None:
        from safetensors.torch import save_model

        save_model(model, str(self.folder(number) / WEIGHTS))
        flush(self.folder(number) / WEIGHTS)

    def _drawn(self, model: Any, number: int) -> list[sampling.PromptSamples]:
        """Return the round's answers, those of an interrupted run where they are there."""
        path = self.folder(number) / DRAWN
        if not path.is_file():
            sampling.write_drawn(
                path, sampling.draw(self.context, model, self.tokenizer, self.training, self.mix, key=f"round-{number}")
            )
        return sampling.read_drawn(path)

    def _learned(self, model: Any, number: int, drawn: Sequence[Sequence[sampling.PromptSamples]]) -> tuple[Any, Facts]:
        """Fine-tune a model (None: the parent) on all right answers. Raises DataError where there is none."""
        started = time.monotonic()
        folder = self.folder(number)
        kept, left_out = sampling.right_answers(drawn, self.settings)
        facts = sampling.facts_of(drawn[-1], self.settings.passing)
        if not kept:
            stage = self.context.stage
            raise DataError(
                f"Stage {stage}: none of {facts['answers']} answers to {facts['prompts']} prompts is right (a total of "
                f"{self.settings.passing} or more; the mean is {facts['mean_reward']}, {facts['unstopped']:.0%} did "
                f"not stop), so there is nothing to learn from. Raise {stage}.samples or {stage}.answer_tokens, add "
                f"easier prompts, or teach {self.context.parent} more first."
            )
        write_rows(folder / SAMPLED_FILES["sft"], kept)
        sampled = Artifact(folder, {"kind": "sample"})
        inputs = {"sampled": sampled, **self.context.inputs}  # the first one that brings samples counts
        known = f"{self.context.result_id}-round-{number}"  # its steps begin at zero
        inner = dataclasses.replace(self.context, work=folder, out=folder, inputs=inputs, result_id=known)
        rows = conversations(inner, self.tokenizer)
        trained = fit(inner, load_parent(inner)[0] if model is None else model, self.tokenizer, rows)
        probe = encode_chat(self.tokenizer, self.training[0]["prompt"])
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
        trained = merge_adapter(inner, trained, probe)
        facts |= {
            "answered": sum(asked.pass_rate(self.settings.passing) > 0 for asked in drawn[-1]),
            "kept": len(kept), "not_kept": dict(left_out), **trained.measured,
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        spent = {"steps": trained.steps, "tokens": trained.tokens, "seconds": trained.seconds}
        counts = [count.as_dict() for count in rows.counts]
        record = {"facts": facts, "trained": spent, "log": trained.log, "rows": counts}
        return trained.model.to(self.device), record

    def _measure(self, model: Any) -> Facts:
        """Let the model answer the held-out prompts greedily; return the share that is right."""
        answers = sampling.answer_greedily(model, self.tokenizer, self.heldout, self.settings.answer_tokens)
        totals = self.mix.score(answers).totals
        right = sum(
            sampling.Sample(answer.text, answer.stopped, answer.num_tokens, total).is_right(self.settings.passing)
            for answer, total in zip(answers, totals, strict=True)
        )
        low, high = wilson(right, len(answers))
        interval = {"low": round(low, 4), "high": round(high, 4)}
        return {"right": round(right / len(answers), 4), "n": len(answers), **interval}

    def _report(self, facts: Facts) -> None:
        learned = f", {facts['kept']} answers kept" if facts["round"] else ""
        self.context.console.line(
            f"  {self.context.stage}: round {facts['round']}, {facts['right']:.2f} of {facts['n']} held-out prompts "
            f"right{learned}"
        )


def _joined(logs: Sequence[Sequence[Facts]]) -> list[Facts]:
    """Return the rounds' logs as one, steps and tokens counted on."""
    joined: list[Facts] = []
    for number, log in enumerate(logs, 1):
        before = {key: joined[-1][key] for key in ("step", "tokens")} if joined else {"step": 0, "tokens": 0}
        joined += [{**entry, **{key: entry[key] + before[key] for key in before}, "round": number} for entry in log]
    return joined
