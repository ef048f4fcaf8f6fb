"""The report on a whole chain: what each stage did to the exam scores, as a model card, plots and JSON.

Usage: `common.stages.card` calls `load_chain`, `build_summary`, `compare_chain`, `draw_loss`, `draw_exam` and
`render_card`, in this order. It reads finished artifacts only; it never scores, trains or touches weights.
"""
