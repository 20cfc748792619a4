"""Round-numbered cards, so that a test's expectation can be worked out on paper."""

from __future__ import annotations

from app.catalogue import CandidateCard, DeviceCard, RecipeCard, Weights
from app.cost.features import TaskFacts

TASK = TaskFacts(n_images=100, n_classes=10, complexity=1.0, label_kind="single_label")

CANDIDATE = CandidateCard(
    name="net",
    network="net",
    family="Net",
    input_size=224,
    parameters=1_000_000,
    head_features=100,
    multiply_adds=1_000_000_000,
    training_multiply_adds=3_000_000_000,
    forward_bytes=10_000_000,
    training_bytes=30_000_000,
    activation_bytes=5_000_000,
    largest_operation_bytes=1_000_000,
    forward_operations=100,
    training_operations=300,
    pretraining="ImageNet-1k",
    top1_percent=70.0,
    top1_source="a table",
    weights=Weights(source="none"),
    licence="Apache-2.0",
)

GPU = DeviceCard(
    name="gpu",
    kind="gpu",
    peak_flops=1e12,
    precision="fp32",
    bandwidth_bytes_per_second=1e11,
    memory_bytes=10**9,
    power_watts=100.0,
    price_usd_per_hour=3.6,
    price_date="2026-11-01",
    price_note="example",
    source="round numbers",
    efficiency_low=0.25,
    efficiency_typical=0.5,
    efficiency_high=1.0,
    launch_seconds=1e-9,
    context_bytes=0,
    startup_seconds=0.0,
    decode_images_per_second=1e9,
)

FULL = RecipeCard(
    name="full",
    description="all weights",
    scope="full",
    optimiser="adamw",
    learning_rate=1e-4,
    weight_decay=0.0,
    schedule="cosine",
    batch_size=32,
    epochs=10,
    evaluation_share=0.2,
)

HEAD = FULL.model_copy(update={"name": "head", "scope": "head", "features_cached": True})
