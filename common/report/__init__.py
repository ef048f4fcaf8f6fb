"""The report on a whole chain: what each stage changed in the exam scores, as a model card, plots and JSON.

Usage: `common.stages.card` calls `load_chain`, `compare_chain`, `compare_chain_texts`, `build_summary`,
`draw_loss`, `draw_exam` and `render_card`. The report reads finished results only; it scores and trains nothing.
"""
