"""The exam: the same questions and held-out texts for every checkpoint, with honest uncertainty.

Usage: `result = exam.run_exam(folder, questions, settings, device="cpu", work=scratch)`, then `gate.check(...)`.

`tasks` writes lm-evaluation-harness task files, `harness` wraps a checkpoint for it, `exam` runs both,
`statistics` has the intervals and tests, `gate` compares checkpoints. It decides nothing about stopping a run.
"""
