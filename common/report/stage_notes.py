"""What the card says about single stages: validation, preferences, rewards, sampled answers, adapters.

Usage: `parts += reward_notes(chain)`; each function returns Markdown parts, none where a chain has no such stage.

They print what manifests say; the picture of rewards is drawn in `common.report.plots`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.config.kinds import kind_of
from common.config.mixture import CurriculumSettings, MixtureSettings
from common.evaluation.comparison import Comparison
from common.report.chain import SIDES, Chain, Checkpoint, counterpart
from common.report.comparisons import exam_changes
from common.report.markdown import MISSING, code, interval, number, percent, plain, table
from common.report.tables import reasons

Facts = Mapping[str, Any]
UNBALANCED = 0.1  # above chance by this much, the most common answer alone looks like skill
CODE_DIGITS = 12  # of the digest of code, as plans show it
REWARDS_PICTURE = "rewards.png"
MODELS_NOTE = (
    "A reward model ranks a pair right when the preferred answer gets the higher reward. Pairs kept from training "
    "belong to prompts that were set aside. Pairs of the held-out role come from the data; in embedded worlds they ask "
    "about things that no training pair asks about. The calibration error is the mean distance between the confidence "
    "in a ranking and how often it is right (0 is best). A model that prefers the longer answer more often than people "
    "do has learned length."
)


def exam_warnings(chain: Chain) -> list[str]:
    """Warn of exams in different precisions, and of unbalanced answers, where one answer alone looks able."""
    warnings = []
    taken: dict[str, list[str]] = {}
    for checkpoint in chain.checkpoints:
        if precision := checkpoint.exam.get("precision"):
            taken.setdefault(str(precision), []).append(f"`{checkpoint.name}`")
    if len(taken) > 1:
        said = "; ".join(f"{', '.join(names)} in {precision}" for precision, names in taken.items())
        warnings.append(
            f"Not all exams were taken in the same precision: {said}. Small differences between these may be rounding."
        )
    for side in SIDES:
        chance, answers = chain.chance(side), Counter(r["answer"] for r in chain.choices(side))
        if chance is None:
            continue
        share = max(answers.values()) / answers.total()
        if share > chance + UNBALANCED:
            warnings.append(
                f"The right answers of the {side} exam are unbalanced. Always giving the most common one scores "
                f"{share:.1%}, and guessing scores {chance:.1%}. A score up to {share:.1%} therefore shows no skill."
            )
    return warnings


def outside_code_notes(chain: Chain) -> list[str]:
    """Say which code that is not part of the package ran, and in which stages."""
    stages: dict[str, list[str]] = {}  # digest -> the stages
    files: dict[str, list[str]] = {}
    for name, manifest in chain.manifests.items():
        if found := manifest.get("outside_code"):
            stages.setdefault(str(found["digest"]), []).append(code(name))
            files[str(found["digest"])] = [code(str(file).replace("`", "'")) for file in found["files"]]
    return [
        f"Code that is not part of the package ran in {', '.join(names)}, as its user allowed (digest "
        f"`{digest[:CODE_DIGITS]}`): {', '.join(files[digest])}."
        for digest, names in stages.items()
    ]


def training_notes(chain: Chain) -> list[str]:
    """Return sentences on validation losses, on rollbacks after loss spikes, and on held-out preferences."""
    notes = []
    for c in chain.checkpoints:
        if found := c.metrics.get("validation"):
            looks, kept = found["looks"], found["kept"]
            best = min(looks, key=lambda look: float(look["loss"]))
            notes.append(
                f"`{c.name}` was evaluated {len(looks)} times on {found['rows']:,} validation rows. The validation "
                f"loss was {looks[0]['loss']:.3f} at step {looks[0]['step']}, {best['loss']:.3f} at its best (step "
                f"{best['step']}) and {looks[-1]['loss']:.3f} at the end. The weights of step {kept} were kept."
            )
    for c in chain.checkpoints:
        if steps := c.metrics.get("passed_over_steps"):
            notes.append(
                f"The training of `{c.name}` was rolled back after a loss spike. The batches of {number(steps)} steps "
                "were skipped."
            )
    for c in chain.checkpoints:
        if accuracy := c.metrics.get("preference_accuracy"):
            notes.append(preference_claim(c.name, accuracy))
        if answers := c.metrics.get("answers"):
            notes.append(_answers_note(c.name, answers, c.metrics.get("label_accuracy")))
    return notes


def preference_claim(name: str, accuracy: Facts) -> str:
    """Say what a stage's accuracy on held-out pairs measured.

    With a reference (DPO): the pairs whose log-probability of the preferred answer minus that of the rejected one grew.
    Without: the pairs whose preferred answer has the higher mean log-probability per token, after and before.
    """
    share = f"In {interval(accuracy)} of {accuracy['n']:,} held-out pairs, `{name}`"
    if "before" in accuracy:
        claim = "gives the preferred answer a higher probability per token than the rejected answer. The model before "
        return f"{share} {claim}it did so in {percent(accuracy['before'])}."
    return (
        f"{share} made the preferred answer more probable, relative to the rejected answer, than it was before this "
        "stage. Chance is 50%."
    )


def _answers_note(name: str, answers: Facts, accuracy: Facts | None) -> str:
    """Say what KTO learned from without pairs, how it weighed it, and whether held-out answers followed their label."""
    wanted, unwanted = (
        f"{number(answers[side])} {side} answers (weight {answers[weight]:g})"
        for side, weight in (("wanted", "desirable_weight"), ("unwanted", "undesirable_weight"))
    )
    note = f"`{name}` learned from {wanted} and {unwanted}."
    if accuracy is None:
        return note
    return (
        f"{note} Of {number(accuracy['n'])} held-out answers with a label, {interval(accuracy)} followed it: wanted "
        "ones became more probable than before this stage, unwanted ones less. This is a measure of ours, as such "
        "answers have no other to be compared with."
    )


def reward_models(chain: Chain) -> dict[str, Facts]:
    """Return stage name -> metrics of the chain's reward models."""
    return {name: m["metrics"] for name, m in chain.manifests.items() if kind_of(m["kind"]).makes == "reward model"}


def rewarded(chain: Chain) -> list[Checkpoint]:
    """Return the checkpoints that trained on rewards."""
    return [c for c in chain.checkpoints if c.metrics.get("looks")]


def has_rewards(chain: Chain) -> bool:
    return bool(reward_models(chain) or rewarded(chain))


def reward_notes(chain: Chain) -> list[str]:
    """Return how well reward models rank, and what training on rewards changed."""
    if not has_rewards(chain):
        return []
    rows = [
        (name, which, found)
        for name, metrics in reward_models(chain).items()
        for which, found in (("kept from training", metrics), ("held-out role", metrics.get("elsewhere")))
        if found
    ]
    ranking = table(
        rows,
        {
            "Reward model": lambda row: code(row[0]),
            "Pairs": lambda row: f"{row[2]['ranking_accuracy']['n']:,} {row[1]}",
            "Ranked right [95%]": lambda row: interval(row[2]["ranking_accuracy"]),
            "Mean margin": lambda row: f"{row[2]['margin']:.2f}",
            "Calibration error": lambda row: f"{row[2]['calibration_error']:.3f}",
            "Model prefers longer": lambda row: percent(row[2]["longer_preferred"]),
            "People prefer longer": lambda row: percent(row[2]["longer_chosen"]),
        },
        text=2,
    )
    return [
        "### Rewards",
        *([ranking, MODELS_NOTE] if ranking else []),
        *map(_reward_note, rewarded(chain)),
        f"![{' and '.join(_pictured(chain)).capitalize()}]({REWARDS_PICTURE})",
    ]


def _pictured(chain: Chain) -> list[str]:
    """Return what the picture of rewards shows."""
    models = ["calibration of reward models"] if reward_models(chain) else []
    return [*models, *(["rewards over the steps"] if rewarded(chain) else [])]


def _reward_note(checkpoint: Checkpoint) -> str:
    """Say what training on rewards changed on prompts that were not trained on."""
    metrics = checkpoint.metrics
    first, held = metrics["looks"][0], metrics["heldout_reward"]
    kept = next(look for look in metrics["looks"] if look["step"] == metrics["kept"])
    parts = [
        f"`{checkpoint.name}` trained for {metrics['steps']:,} steps on rewards.",
        f"On {held['n']} held-out prompts, the mean reward of greedy answers went from {held['before']:.3f} to "
        f"{held['after']:.3f} ({held['gain']:+.3f} [{held['low']:+.3f}, {held['high']:+.3f}], paired bootstrap).",
    ]
    if "right" in first:
        parts.append(f"The share of right answers went from {percent(first['right'])} to {percent(kept['right'])}.")
    parts.append(f"The mean length went from {first['tokens']:.1f} to {kept['tokens']:.1f} tokens.")
    if unstopped := metrics.get("unstopped"):
        parts.append(f"Of its last sampled answers, {percent(unstopped)} did not stop by themselves.")
    if skipped := metrics.get("no_signal"):
        parts.append(f"In {skipped:,} steps, all answers to a prompt had the same reward, so nothing was learned.")
    if reason := metrics.get("stopped"):
        parts.append(f"Training was stopped early: {reason}. The weights of step {metrics['kept']} were kept.")
    return " ".join(parts)


def mixture_notes(chain: Chain) -> list[str]:
    """Return a sentence for each stage that took its shares from a paper, or read its rows in an order."""
    found = []
    for name, manifest in chain.manifests.items():
        given = (manifest.get("settings") or {}).get("mixture") or {}
        if given.get("preset") is not None:
            mixture = MixtureSettings.model_validate({key: given[key] for key in ("preset", "parts")})
            found.append(f"In `{name}`, {mixture.preset_phrase}.")
        if given.get("curriculum") is not None:
            found.append(f"In `{name}` {CurriculumSettings.model_validate(given['curriculum']).phrase}.")
    return found


def continued_notes(chain: Chain) -> list[str]:
    """Return a sentence for each stage that went on in the data behind the stages before it."""
    found = []
    for name, manifest in chain.manifests.items():
        parts = []
        for role, facts in (manifest["metrics"].get("continued") or {}).items():
            again = f" ({percent(facts['again'])} of its own budget is read again)" if facts["again"] else ""
            parts.append(f"{number(facts['passed'])} tokens of {plain(role)}{again}")
        if parts:
            found.append(f"`{name}` went on behind what the stages before it had read: {' and '.join(parts)}.")
    return found


def sampling_notes(chain: Chain) -> list[str]:
    """Return what is known of the answers that models wrote for training."""
    parts = []
    for name, manifest in chain.manifests.items():
        if kind_of(manifest["kind"]).makes == "sample":
            parts.append(_sample_note(name, manifest))
        elif "rounds" in manifest.get("metrics", {}):
            parts.append(_expert_note(name, manifest))
    return ["### Sampled answers", *parts] if parts else []


def label_notes(chain: Chain) -> list[str]:
    """Return what is known of the labels that models chose for texts of CPT."""
    found = []
    for name, manifest in chain.manifests.items():
        facts = manifest["metrics"]
        if kind_of(manifest["kind"]).makes != "labelled text":
            continue
        chosen = ", ".join(f"{plain(label)} {times:,}" for label, times in facts["labels"].items())
        right = facts.get("right")
        known = f" Of {right['n']:,} whose answer is known, {interval(right)} are right." if right else ""
        found.append(
            f"For `{name}`, `{manifest['parent']}` chose the likeliest label of {number(facts['prompts'])} prompts "
            f"(PCP, arXiv 2305.01711; that all tokens are learned, and not some that are masked, is ours). "
            f"{number(facts['texts'])} texts were made (left out: {reasons(facts['left_out'])}).{known} "
            f"Labels: {chosen}."
        )
    return ["### Pseudo-labels", *found] if found else []


def _sample_note(name: str, manifest: Facts) -> str:
    facts = manifest["metrics"]
    return (
        f"For `{name}`, `{manifest['parent']}` answered {number(facts['prompts'])} prompts "
        f"{facts['answers'] // facts['prompts']} times each. {percent(facts['answers_right'])} of the answers are "
        f"right, and {percent(facts['unstopped'])} did not stop by themselves. The mean reward is "
        f"{facts['mean_reward']:.2f}, the mean length {facts['mean_tokens']:.0f} tokens. The answers give "
        f"{number(facts['pairs'])} pairs of a better and a worse answer (prompts without a pair: "
        f"{reasons(facts['no_pair'])}) and {number(facts['kept'])} right answers for training (left out: "
        f"{reasons(facts['not_kept'])}). {_rates(facts['pass_rates'])}"
    )


def _expert_note(name: str, manifest: Facts) -> str:
    facts = manifest["metrics"]
    rounds = facts["rounds"]

    def sampled(value: Callable[[Facts], str]) -> Callable[[Facts], str]:
        return lambda r: value(r) if r["round"] else MISSING  # no answers were sampled before round 0

    body = table(
        rounds,
        {
            "Round": lambda r: f"**{r['round']}**" if r["round"] == facts["chosen"] else str(r["round"]),
            "Held-out prompts right [95%]": lambda r: interval({**r, "score": r["right"]}),
            "Prompts answered right": sampled(lambda r: f"{number(r['answered'])} of {number(r['prompts'])}"),
            "Answers right": sampled(lambda r: percent(r["answers_right"])),
            "Not stopped": sampled(lambda r: percent(r["unstopped"])),
            "Answers kept so far": sampled(lambda r: number(r["kept"])),
            "Duplicates dropped": sampled(lambda r: number(r["not_kept"].get("duplicate", 0))),
        },
        text=0,
    )
    return (
        f"`{name}` trained on its own right answers. It answered {rounds[0]['n']} held-out prompts greedily before the "
        f"first round (round 0) and after each round. The round in bold was kept.\n\n{body}\n\n"
        f"In the last round: {_rates(rounds[-1]['pass_rates'])}"
    )


def _rates(rates: Mapping[str, int]) -> str:
    """The histogram of pass rates as a sentence."""
    counts = ", ".join(f"{name}: {count:,}" for name, count in rates.items())
    return f"Prompts by the share of their answers that are right: {counts}."


def adapter_notes(chain: Chain, comparisons: Sequence[Comparison]) -> list[str]:
    """Return what was trained as an adapter, what merging changed, and the difference from training all weights.

    The difference is known only where the chain also trained all weights from the same parent, as `pipeline=adapters`.
    """
    notes = [_adapter_note(chain, c, comparisons) for c in chain.checkpoints if c.is_adapted]
    return ["### Adapters", *notes] if notes else []


def _adapter_note(chain: Chain, checkpoint: Checkpoint, comparisons: Sequence[Comparison]) -> str:
    settings, metrics = checkpoint.settings, checkpoint.metrics
    parts = [
        f"`{checkpoint.name}` trained an adapter ({settings['peft']}, rank {(settings.get('lora') or {}).get('r')})."
    ]
    if (changed := metrics.get("adapter_merge_difference")) is not None:
        parts.append(f"Merging it changed the logits by {changed:.1g} of their range.")
    if (changed := metrics.get("quantized_logit_difference")) is not None:
        parts.append(f"The unquantised result differs from the quantised model by {changed:.1%}.")
    full = counterpart(chain, checkpoint)
    if full is None:
        parts.append("No stage of this chain trained all weights from the same parent, so the cost is not known.")
        return " ".join(parts)
    if costs := exam_changes(comparisons, full.name, checkpoint.name):
        parts.append(f"Compared with training all weights (`{full.name}`): {', '.join(costs)}.")
    return " ".join(parts)
