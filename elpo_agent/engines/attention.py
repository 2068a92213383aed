"""Names of attention implementations that take an explicit mask, as batches of unequal prefixes need it."""

from __future__ import annotations

TREE_ATTENTION = "elpo_tree"
"""The attention that models trained on packed rows are switched to; without a tree it is transformers' "sdpa"."""

MASKED_ATTENTION = ("sdpa", "eager", TREE_ATTENTION)
