"""What each command does and takes: the source of `--help`, of the menu, and of the check of what a user typed.

Usage: `own, settings = COMMANDS["plan"].split("plan", overrides)`; `COMMANDS["plan"].run(program, settings, **own)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.cli import commands
from common.config.overrides import Overrides
from common.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Option:
    """One `key=value` of a command's own."""

    meaning: str
    needed: bool = False
    switch: bool = False  # true or false


@dataclass(frozen=True)
class Command:
    """One command: its function, what it does in two sentences, what it takes, and two examples."""

    run: Callable[..., None]
    summary: str  # for the menu
    does: str
    examples: tuple[str, str]  # what follows the program's name
    options: Mapping[str, Option]
    settings: Mapping[str, str]  # overrides that it passes on to a run; none: it takes its options only

    def split(self, name: str, overrides: Mapping[str, str]) -> tuple[dict[str, str | bool], Overrides]:
        """Return the command's own options and the overrides of a run.

        Raises ConfigError for a needed option that is missing, a switch that is neither true nor false, and an
        override where the command takes none.
        """
        own: dict[str, str | bool] = {}
        for key, option in self.options.items():
            value = overrides.get(key)
            if option.needed and not value:
                raise ConfigError(f"{name} needs {key}=<{key}>.")
            if value is not None and not value.strip():
                raise ConfigError(f"{key} is empty. It takes: {option.meaning}. Give it, or leave {key} out.")
            if option.switch and value not in (None, "true", "false"):
                raise ConfigError(f"{key}={value}: expected true or false.")
            if value is not None:
                own[key] = value == "true" if option.switch else value
        rest = {key: value for key, value in overrides.items() if key not in self.options}
        for key in rest:
            if not self.settings:
                raise ConfigError(f"{name} takes no '{key}'.{did_you_mean(key, self.options)}")
        return own, rest


RUN_SETTINGS = {
    "domain": "shipped domain, such as medical, or the path of a domain folder, such as ./chemistry",
    "domains": "several of them, such as medical,legal: one chain through all, in place of domain",
    "order": "of domains: given, similar (each followed by the nearest) or random (default: given)",
    "profile": "model and budgets (default: tiny)",
    "pipeline": "stages and their order (default: the profile's, or full)",
    "name": "name of the run, for a recipe beside others of its pipeline (default: the pipeline's)",
    "data": "embedded, hub, or the path of a data manifest (default: the profile's)",
    "data_root": "folder where relative paths of a manifest start (default: the manifest's folder)",
    "out": "folder of artifacts/, runs/ and models/ (default: the clone, or the current folder if installed)",
    "run.allow_code": "name of a domain outside the package whose Python code may run",
    "run.<setting>": "where and how it runs, such as run.device=cpu; changes no result",
    "<stage>.<setting>": "any setting of a stage, such as cpt.train.learning_rate=1e-5",
    "<section>.<setting>": "any setting of model, embedded, gate, verify or needs; also seed=, peft= and precision=",
}
FROZEN_SETTINGS = {
    "out": "folder of artifacts/, runs/ and models/ (default: where the plan is)",
    "run.allow_code": RUN_SETTINGS["run.allow_code"],
    "run.<setting>": RUN_SETTINGS["run.<setting>"],
}
OUT = Option(RUN_SETTINGS["out"])
ALL_SETTINGS = {**RUN_SETTINGS, "domain": f"{RUN_SETTINGS['domain']}; all: every shipped domain"}

COMMANDS: dict[str, Command] = {
    "run": Command(
        commands.run, "take a domain from its data to a published checkpoint with a model card",
        "Makes every stage that is missing or out of date, in order, and prints the scores. "
        "Finished stages are reused; a stopped run continues where it stopped.",
        ("domain=medical", "domain=medical profile=qwen3-8b data=hub run.device=cuda"),
        {}, ALL_SETTINGS,
    ),
    "plan": Command(
        commands.plan, "what a run would do and why, with tokens, memory and time",
        "Shows the state of every stage, why it would run, and what it would cost. Nothing is trained.",
        ("domain=medical", "domain=medical profile=qwen3-8b data=hub run.hardware=h100-sxm"),
        {"freeze": Option("true: write plan.json, from which a scheduler can run single stages", switch=True)},
        ALL_SETTINGS,
    ),
    "why": Command(
        commands.why, "why a stage would run again: the inputs that changed",
        "Names every setting, file and input of one stage that differs from the last run. Nothing is trained.",
        ("domain=medical stage=sft", "domain=medical stage=dpo cpt.tokens=32768"),
        {"stage": Option("name of the stage", needed=True)}, RUN_SETTINGS,
    ),
    "rerun": Command(
        commands.rerun, "make one stage again, even if it is up to date",
        "Makes one stage again; later stages follow only if its result differs. "
        "With name= and no settings it is the run that was last planned under that name.",
        ("domain=medical stage=sft", "domain=all stage=card"),
        {"stage": Option("name of the stage", needed=True)},
        ALL_SETTINGS,
    ),
    "data": Command(
        commands.data, "clean the data and show what was done: sources, blocks, lengths, rows that went",
        "Makes the stages that clean a manifest's rows, and shows what each block did to each source, with some rows "
        "that went. Nothing is trained.",
        ("domain=medical data=my.yaml", "domain=medical data=my.yaml role=cpt rejects=10"),
        {
            "role": Option("show the rows of this role alone, such as cpt"),
            "rejects": Option("rows to show for each block and reason (default: 3)"),
        },
        RUN_SETTINGS,
    ),
    "config": Command(
        commands.config, "every setting of a run with its value and the layer that set it",
        "Shows the resolved configuration of a run, each value with the layer that set it. "
        "With describe, explains one setting or block: meaning, type and default.",
        ("domain=medical profile=qwen3-8b", "describe=cpt.schedule"),
        {"describe": Option("setting or block to explain, such as cpt.schedule")}, RUN_SETTINGS,
    ),
    "preview": Command(
        commands.preview, "the rows of a stage as they are trained: loss, packing, what was masked or dropped and why",
        "Shows rows exactly as a stage trains on them, tokens that carry loss in colour, and the accounts of all rows. "
        "It reads them as the stage does and trains nothing.",
        ("domain=medical stage=sft", "domain=medical stage=cpt rows=20 at=100 html=preview.html"),
        {
            "stage": Option("name of the stage", needed=True),
            "rows": Option("how many rows to show, up to 200 (default: 5)"),
            "at": Option("the first row to show, counted from 1 (default: 1)"),
            "html": Option("write a page of its own, such as preview.html, instead of showing the rows here"),
            "full": Option("true: read all of the data, however large; false: of large ones a part", switch=True),
        },
        RUN_SETTINGS,
    ),
    "status": Command(
        commands.status, "every domain at a glance: scores, published versions, unfinished runs",
        "Shows one line for each run: exam scores of the base and of the published checkpoint. "
        "Runs that have not finished say how far they are.",
        ("", "out=/data/results"), {"out": OUT}, {},
    ),
    "chat": Command(
        commands.chat, "talk to a finished model",
        "Loads a model of a finished run (with name= and no settings, of the run of that name) and answers greedily. "
        "Without prompt it holds a conversation until an empty line.",
        ("domain=medical", 'domain=medical stage=sft prompt="What is the capital of Japan?"'),
        {
            "stage": Option("stage whose model answers (default: the published one)"),
            "prompt": Option("one question to answer"),
        },
        RUN_SETTINGS,
    ),
    "publish": Command(
        commands.publish, "publish a finished run, locally or on the Hub",
        "Copies the final model and its card into models/, or commits them to a Hub repository. "
        "Every other stage must be finished.",
        ("domain=medical to=local", "domain=medical to=hub:<owner>/<name>"),
        {"to": Option("local, or hub:<owner>/<name> (default: publish.to of the domain)")}, RUN_SETTINGS,
    ),
    "stage": Command(
        commands.stage, "run one stage of a frozen plan, for schedulers",
        "Runs one stage of a frozen plan, whose inputs must be there. "
        "It does nothing if the stage is finished, and holds a lock while it works.",
        (
            "runs/medical/tiny/demonstration/plan.json sft",
            "plan=runs/medical/tiny/demonstration/plan.json stage=sft force=true",
        ),
        {
            "plan": Option("plan.json that `run` or `plan freeze=true` wrote; may be given first, without plan=", True),
            "stage": Option("name of the stage; may be given second, without stage=", needed=True),
            "force": Option("true: make it again even if it is there", switch=True),
        },
        FROZEN_SETTINGS,
    ),
    "gc": Command(
        commands.gc, "remove results that no run refers to",
        "Removes results that no folder in runs/ refers to and no run is using, and scratch of finished stages. "
        "What the store did not make is left and listed, and so is all that would go with dry=true.",
        ("dry=true", "out=/data/results"),
        {"out": OUT, "dry": Option("true: list and remove nothing", switch=True)}, {},
    ),
    "verify": Command(
        commands.verify, "read every result and published model, and compare it with what was made",
        "Reads every byte of the store's results and of the local published versions, and compares their digests. "
        "Names each file that differs and the command that repairs it; then the exit code is 1.",
        ("", "out=/data/results"), {"out": OUT}, {},
    ),
    "new-domain": Command(
        commands.new_domain, "make the folder of a new domain, which already runs",
        "Makes a domain folder with example facts that run as they are, and comments that say what to replace. "
        "In a clone it goes to domains/, with the installed command to the current folder.",
        ("name=chemistry", "name=contract-law"),
        {"name": Option("name of the domain: small letters, digits and hyphens", needed=True)}, {},
    ),
}  # fmt: skip
