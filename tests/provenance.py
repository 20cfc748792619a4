"""A provenance for embeddings that no probe made; `dataclasses.replace` gives another."""

from __future__ import annotations

from app.embedding.vector import Provenance

PROVENANCE = Provenance(
    probe="tf_efficientnet_lite0",
    probe_digest="0" * 64,
    preprocessing="1",
    estimator="hutchinson",
    draws=2,
    seed=0,
    n_images=40,
    n_classes=2,
    label_kind="single_label",
    penalty=1.0,
    cv_log_likelihood=-0.5,
    cv_accuracy=0.8,
    code_version="test",
    device="cpu",
    seconds=1.0,
)
