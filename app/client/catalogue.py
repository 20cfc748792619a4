"""What there is to choose from: candidates, devices, recipes, probes, and how fast devices are."""

from __future__ import annotations

from urllib.parse import quote

from app.api.schemas import CardPage, ProbeAnswer, TimingAnswer, TimingPage, TimingReport
from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.client.asking import Asking


class Catalogue(Asking):
    async def candidates(self) -> list[CandidateCard]:
        return (await self._get(CardPage[CandidateCard], "/v1/candidates")).items

    async def add_candidate(self, card: CandidateCard) -> CandidateCard:
        """One of your own, under a name that no card has yet."""
        body = card.model_dump(mode="json", exclude_none=True)
        return await self._post(CandidateCard, "/v1/candidates", body)

    async def remove_candidate(self, name: str) -> None:
        """One of your own; its outcomes stay."""
        await self._wire.delete(f"/v1/candidates/{quote(name, safe='')}")

    async def devices(self) -> list[DeviceCard]:
        return (await self._get(CardPage[DeviceCard], "/v1/devices")).items

    async def add_device(self, card: DeviceCard) -> DeviceCard:
        """A machine of your own, with its price, under a name that no card has yet."""
        body = card.model_dump(mode="json", exclude_none=True)
        return await self._post(DeviceCard, "/v1/devices", body)

    async def remove_device(self, name: str) -> None:
        """One of your own; its outcomes and timings stay."""
        await self._wire.delete(f"/v1/devices/{quote(name, safe='')}")

    async def recipes(self) -> list[RecipeCard]:
        return (await self._get(CardPage[RecipeCard], "/v1/recipes")).items

    async def probes(self) -> list[ProbeAnswer]:
        return (await self._get(CardPage[ProbeAnswer], "/v1/probes")).items

    async def timings(self, device: str | None = None) -> list[TimingAnswer]:
        """What batches of candidates took on your devices."""
        return (await self._get(TimingPage, "/v1/timings", device=device)).items

    async def report_timing(self, report: TimingReport) -> TimingAnswer:
        """The newest of a candidate on a device counts."""
        body = report.model_dump(mode="json")
        return await self._post(TimingAnswer, "/v1/timings", body)

    async def remove_timing(self, device: str, candidate: str) -> None:
        """Estimates of the candidate on the device rest on what is counted again."""
        names = (quote(name, safe="") for name in (device, candidate))
        await self._wire.delete("/v1/timings/" + "/".join(names))
