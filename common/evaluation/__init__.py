"""The exam: the same questions and held-out texts for every checkpoint, with intervals and tests for the scores.

Usage: `result = run_exam(folder, exam, settings, device="cpu")`, then `gate.check(...)`.

`tasks` describes questions to lm-evaluation-harness, `harness` wraps a checkpoint for it, `exam` runs both,
`statistics` has the intervals and tests, `comparison` and `gate` compare checkpoints.
"""
