from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from app.store import embeddings, intake, jobs
from tests.api.conftest import (
    LIBRARY_SPACE,
    Service,
    assert_problem,
    embedding_of,
)

pytestmark = pytest.mark.engines("embedded", "servers")


def card_of(service: Service, task_id: str, **asked: Any) -> str:
    answer = service.client.get(f"/v1/tasks/{task_id}/card", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    return str(answer.text)


def section(card: str, title: str) -> str:
    return card.partition(f"### {title}\n\n")[2].partition("\n\n### ")[0]


def test_a_card_tells_what_the_other_answers_tell(service: Service) -> None:
    task_id = service.ready(seed=3, space_id=LIBRARY_SPACE, name="animals")
    card = card_of(service, task_id, k=3)
    assert "## animals\n\n40 images in 2 classes." in card
    assert "| cat | 20 |\n| dog | 20 |" in section(card, "Classes")
    assert "Of the 2 tasks of the reference library, " in section(card, "Complexity")
    near = service.client.get(f"/v1/tasks/{task_id}/neighbours?k=3").json()
    names = re.findall(r"^\| (\S+) \(reference library\)", section(card, "Nearest tasks"), re.M)
    assert names == [row["name"] for row in near["neighbours"]]
    told = service.client.get(f"/v1/tasks/{task_id}/estimates?k=3").json()["estimates"]
    models = section(card, "Models to start from")
    assert re.findall(r"^\| `([^`]+)`", models, re.M) == [row["candidate"] for row in told]
    assert "uncalibrated range" in models
    provenance = embedding_of(3).provenance
    measured = section(card, "How it was measured")
    assert f"`{provenance.probe}`" in measured
    assert f"{provenance.draws} pass" in measured
    assert f"`{LIBRARY_SPACE}`" in measured


def test_its_front_matter_is_what_a_dataset_hub_reads(service: Service) -> None:
    name = 'birds: "rare" 🐦'
    task_id = service.ready(name=name, tags=["fur", "50%"])
    data = DatasetCard(card_of(service, task_id)).data
    assert data.pretty_name == name
    assert data.task_categories == ["image-classification"]
    assert data.task_ids == ["multi-class-image-classification"]
    assert data.size_categories == ["n<1K"]
    assert data.tags == ["50%", "fur", "task2vec"]
    assert data.license is None


def test_a_task_of_the_library_has_its_source_and_licence(service: Service) -> None:
    listed = service.client.get("/v1/tasks?library=true").json()["items"]
    card = card_of(service, listed[0]["id"])
    assert DatasetCard(card).data.license == "mit"
    assert "From a set." in card
    assert "### Classes" not in card  # it came without images


def test_names_that_are_markup_are_shown_and_do_nothing(service: Service) -> None:
    accepted = service.send(name="<b>*cats* | dogs</b>").json()
    start = service.start(accepted["job_id"])
    service.succeed(accepted["job_id"], start)
    card = card_of(service, accepted["id"])
    assert "### Nearest" not in card  # there is no other
    assert r"## \<b\>\*cats\* \| dogs\</b\>" in card


def test_of_many_classes_the_first_are_told(service: Service) -> None:
    accepted = service.send().json()
    token = service.start(accepted["job_id"])
    counts = {f"class{i}": 1 for i in range(103)}
    summary = {"used": 103, "skipped": 0, "classes": counts, "warnings": []}
    with service.resources.database.session() as session:
        row = embeddings.add(session, "local", "r" * 64, embedding_of(5))
        found = intake.Intake("multi_label", 103, 103, summary, [])
        jobs.finish_job(
            session, accepted["job_id"], token, "succeeded", intake=found, embedding=row
        )
    card = card_of(service, accepted["id"])
    assert "103 classes, several an image" in card
    assert "class99" in card
    assert "class100" not in card
    assert "And 3 classes more." in card
    assert DatasetCard(card).data.task_ids == ["multi-label-image-classification"]


def test_of_a_task_without_embedding_there_is_no_card(service: Service) -> None:
    task_id = service.send().json()["id"]
    assert_problem(service.client.get(f"/v1/tasks/{task_id}/card"), 409, "task-not-ready")
