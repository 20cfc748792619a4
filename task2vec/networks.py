"""Candidates as networks to train; this one needs torch and timm (extra `worker`)."""

from __future__ import annotations

from typing import Any

from torch import nn

from app.catalogue import CandidateCard
from app.embedding.pretrained import pretrained


def network_of(card: CandidateCard, classes: int) -> nn.Module:
    """The network that estimates of a candidate are about: timm's, with the weights that the card
    names and a new classifier. Raises Unavailable where the weights cannot be had."""
    network: Any = pretrained(card.network, card.weights, card.input_size, card.name)
    network.reset_classifier(classes)
    found: nn.Module = network
    return found
