"""Load saved models in a process that has never imported the training code, as any other program would.

Usage: `with CleanProcess() as clean: clean.ask({"folder": ..., "input_ids": [...], "logits": "probe.npy"})`.

One process serves a whole run, since importing the libraries takes longer than a check. It reads and writes JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from common.models.remote_code import loadable
from common.system.outside_code import allow_digests

TOLERANCE = {"torch.float32": 1e-3, "torch.bfloat16": 2e-1, "torch.float16": 5e-2}  # of logits, absolute


class CleanProcess:
    """A child process that loads models on request. It starts at the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the child early, so that its imports run during the first stage's training."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "common.models.clean_load"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
                start_new_session=True,  # Ctrl-C stops the run, not a check in progress
            )  # fmt: skip

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send one question and return the answer. An answer with `error` says why a model did not load."""
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it has died
            line = ""
        if not line:
            self._process = None
            with contextlib.suppress(OSError), process:  # closes the pipes and waits
                pass
            return {"error": f"the checking process died with exit code {process.returncode}"}
        return dict(json.loads(line))

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(OSError), self._process:  # closes the pipes and waits
                pass
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inspect(
    folder: str, input_ids: list[int], logits: str, trust_remote_code: bool, allowed: Sequence[str] = ()
) -> dict[str, Any]:
    """Load a model and compare its logits (T, V) with those stored in `logits`; `allowed` is the code it may run."""
    import numpy as np
    import torch
    import transformers

    allow_digests(allowed)
    folder = str(loadable(Path(folder), trust_remote_code))
    transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    names = json.loads(Path(folder, "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    rewards = str(names[0]).endswith("ForSequenceClassification")
    auto = transformers.AutoModelForSequenceClassification if rewards else transformers.AutoModelForCausalLM
    model, report = auto.from_pretrained(
        folder, dtype="auto", output_loading_info=True, use_safetensors=True, trust_remote_code=trust_remote_code
    )
    model.eval()
    with torch.inference_mode():
        found_TV = model(input_ids=torch.tensor([input_ids]), use_cache=False).logits[0].float().numpy()
    reference_TV = np.load(logits, allow_pickle=False)
    head = model.get_output_embeddings()
    return {
        "missing": sorted(map(str, report["missing_keys"])),
        "unexpected": sorted(map(str, report["unexpected_keys"])),
        "tied_expected": head is not None and bool(getattr(model.config, "tie_word_embeddings", False)),
        "tied": head is not None and head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr(),
        "difference": float(np.abs(found_TV - reference_TV).max()),
        "tolerance": TOLERANCE[str(model.dtype)],
    }


def main() -> None:
    """Answer questions from standard input until it closes. Loading reports stay out of the answers."""
    from transformers.utils import logging as transformers_logging

    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for line in sys.stdin:
        try:
            answer = inspect(**json.loads(line))
        except Exception as error:  # any failure to load is the answer
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
