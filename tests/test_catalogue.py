"""The shipped cards, as data under test, and what the catalogue refuses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import timm
from pydantic import ValidationError
from timm.optim._optim_factory import create_optimizer_v2

from app.catalogue import (
    CandidateCard,
    Card,
    DeviceCard,
    ProbeCard,
    RecipeCard,
    Weights,
    get_card,
    load_card,
    load_cards,
)
from app.errors import InvalidRequest
from app.settings import shared_directory
from benchmarks import candidates as counting

MODELS = shared_directory("models")
CANDIDATES = load_cards(MODELS, CandidateCard)
DEVICES = load_cards(MODELS, DeviceCard)
RECIPES = load_cards(MODELS, RecipeCard)
COUNTED = counting.Counts.__dataclass_fields__

every_candidate = pytest.mark.parametrize("card", CANDIDATES.values(), ids=CANDIDATES)
every_device = pytest.mark.parametrize("card", DEVICES.values(), ids=DEVICES)


def test_at_least_25_candidates_of_at_least_ten_families_are_shipped():
    assert len(CANDIDATES) >= 25
    assert len({card.family for card in CANDIDATES.values()}) >= 10


@pytest.mark.parametrize("kind", [ProbeCard, CandidateCard, DeviceCard, RecipeCard])
def test_every_kind_has_a_shipped_card(kind):
    assert load_cards(MODELS, kind)


@every_candidate
def test_a_candidates_network_and_weights_exist_in_timm(card):
    assert timm.is_model(card.network)
    kind, _, tag = card.weights.source.partition(":")
    if kind == "timm":
        assert card.name == f"{card.network}.{tag}"
        assert card.name in timm.list_pretrained(f"{card.network}.*")


@every_candidate
def test_a_candidates_training_costs_about_three_forward_passes(card):
    assert 2.5 < card.training_multiply_adds / card.multiply_adds < 3.5
    assert card.training_bytes > 2 * card.forward_bytes
    assert card.training_operations > card.forward_operations


@every_candidate
def test_a_candidates_units_are_plausible(card):
    assert 1e6 < card.parameters < 1e9
    assert 1e7 < card.multiply_adds < 1e12
    assert 1e7 < card.activation_bytes < card.training_bytes
    assert card.largest_operation_bytes <= card.forward_bytes
    assert (card.top1_percent is None) == (card.top1_source is None)
    if card.top1_percent is not None:
        assert 60 < card.top1_percent < 92, "percent, not a share"


def test_packaged_weights_carry_a_digest():
    for card in CANDIDATES.values():
        if card.weights.source.startswith("package:"):
            assert card.weights.sha256 is not None, card.name


def test_a_probe_is_pinned_by_its_file_or_by_its_digest():
    probes = load_cards(MODELS, ProbeCard)
    downloaded = probes["resnet18"]
    assert {card.is_pinned for name, card in probes.items() if "lite" in name} == {True}
    assert not downloaded.is_pinned
    assert downloaded.model_copy(update={"digest": "0" * 64}).is_pinned


def test_one_network_at_one_size_counts_the_same_under_every_set_of_weights():
    seen: dict[tuple[str, int], tuple[object, ...]] = {}
    for card in CANDIDATES.values():
        counts = tuple(getattr(card, field) for field in COUNTED)
        assert seen.setdefault((card.network, card.input_size), counts) == counts, card.name


@pytest.mark.parametrize(
    "name",
    [
        "resnet18.tv_in1k",  # plain convolutions
        "mobilenetv3_small_100.lamb_in1k",  # depthwise, which torch overcounts
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",  # attention
    ],
)
def test_counted_fields_equal_a_recount(name):
    card = CANDIDATES[name]
    recount = asdict(counting.count(card.network, card.input_size))
    exact = ("parameters", "head_features", "multiply_adds", "training_multiply_adds")
    assert {field: recount[field] for field in exact} == {
        field: getattr(card, field) for field in exact
    }
    for field in COUNTED.keys() - set(exact):  # these follow the version of torch, slightly
        assert recount[field] == pytest.approx(getattr(card, field), rel=0.1), field


def test_writing_counts_leaves_hand_written_fields_and_comments_alone(tmp_path: Path):
    shipped = MODELS / "candidates" / "resnet18.tv_in1k.toml"
    card = CANDIDATES["resnet18.tv_in1k"]
    path = tmp_path / shipped.name
    path.write_text(shipped.read_text().replace(str(card.parameters), "1"))
    counts = counting.Counts(**{field: getattr(card, field) for field in COUNTED})
    assert counting.write(path, counts)
    assert path.read_text() == shipped.read_text()
    assert not counting.write(path, counts)


def test_counts_missing_from_a_new_card_are_added_beside_its_other_fields(tmp_path: Path):
    shipped = (MODELS / "candidates" / "resnet18.tv_in1k.toml").read_text()
    path = tmp_path / "resnet18.tv_in1k.toml"
    kept = [line for line in shipped.splitlines() if line.split(" ")[0] not in COUNTED]
    path.write_text("\n".join(kept))
    card = CANDIDATES["resnet18.tv_in1k"]
    counting.write(path, counting.Counts(**{field: getattr(card, field) for field in COUNTED}))
    assert load_card(path, CandidateCard) == card


@every_device
def test_a_devices_units_are_plausible(card):
    assert 1e10 < card.peak_flops < 1e16
    assert 1e9 < card.bandwidth_bytes_per_second < 1e14
    assert 1e9 < card.memory_bytes < 1e12
    assert 1 < card.power_watts <= 1500
    assert 0 <= card.price_usd_per_hour < 50
    assert 1e-7 < card.launch_seconds < 1e-3
    assert 10 < card.decode_images_per_second < 1e5
    assert card.context_bytes < card.memory_bytes / 2


@every_device
def test_a_devices_price_is_dated_and_said_to_be_an_example(card):
    assert "example" in card.price_note
    assert card.source


def test_the_machine_that_runs_the_service_and_common_gpus_have_cards():
    assert {"cpu-2core", "t4", "a100-80gb", "h100", "rtx-3090", "rtx-4090"} <= DEVICES.keys()


def test_head_only_and_full_recipes_are_shipped():
    assert RECIPES["head_only"].scope == "head"
    assert RECIPES["head_only"].features_cached
    assert RECIPES["full"].scope == "full"


def test_the_rates_of_the_discriminative_recipe_fall_towards_the_input():
    """By timm's grouping of layers, of every shipped kind of network that can be built here."""
    recipe = RECIPES["discriminative"]
    assert recipe.layer_decay is not None
    for network in ("resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"):
        optimiser = create_optimizer_v2(
            timm.create_model(network),
            opt=recipe.optimiser,
            lr=recipe.learning_rate,
            layer_decay=recipe.layer_decay,
        )
        scales = {group["lr_scale"] for group in optimiser.param_groups}
        assert max(scales) == 1
        assert min(scales) < 0.5, "the first layers hardly move"


def test_a_run_as_weights_is_named_by_its_id_alone():
    run_id = "0" * 32
    assert Weights(source=f"run:{run_id}").run_id == run_id
    assert Weights(source="timm:in1k").run_id is None
    for source in ("run:", f"run:{run_id}/../x", "run:/etc/passwd", f"run:{run_id}\n"):
        with pytest.raises(ValidationError):
            Weights(source=source)


def copied(tmp_path: Path, name: str, **changes: str) -> Path:
    text = (MODELS / "recipes" / "full.toml").read_text()
    for old, new in changes.items():
        text = "\n".join(new if line.startswith(f"{old} ") else line for line in text.splitlines())
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("epochs", "epochs = 20\nepoch = 20"),
        ("epochs", 'epochs = "20"'),
        ("epochs", "epochs = true"),
        ("epochs", "epochs = 0"),
        ("learning_rate", "learning_rate = nan"),
        ("scope", 'scope = "half"'),
        ("batch_size", ""),
        ("batch_size", "batch_size = "),
    ],
    ids=["unknown", "string", "boolean", "zero", "nan", "choice", "missing", "syntax"],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, field: str, line: str):
    with pytest.raises(InvalidRequest, match=r"full\.toml"):
        load_card(copied(tmp_path, "full", **{field: line}), RecipeCard)


def test_cached_features_of_a_trained_network_are_refused(tmp_path: Path):
    path = copied(tmp_path, "full", features_cached="features_cached = true")
    with pytest.raises(InvalidRequest, match="trained features change"):
        load_card(path, RecipeCard)


def test_efficiencies_out_of_order_are_refused(tmp_path: Path):
    text = (MODELS / "devices" / "t4.toml").read_text()
    path = tmp_path / "t4.toml"
    path.write_text(text.replace("efficiency_low = 0.26", "efficiency_low = 0.9"))
    with pytest.raises(InvalidRequest, match="must not fall"):
        load_card(path, DeviceCard)


def test_a_card_named_unlike_its_file_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="calls itself 'full'"):
        load_card(copied(tmp_path, "other"), RecipeCard)


def test_an_unknown_name_lists_the_names_there_are():
    with pytest.raises(InvalidRequest) as refused:
        get_card(MODELS, RecipeCard, "nothing")
    assert "head_only" in refused.value.remedy


def test_no_card_stands_in_an_empty_catalogue(tmp_path: Path):
    kinds: list[type[Card]] = [ProbeCard, CandidateCard, DeviceCard, RecipeCard]
    assert all(load_cards(tmp_path, kind) == {} for kind in kinds)
