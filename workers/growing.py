"""Campaigns that get slices as they go on: what the next ones are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from db.records import CampaignRow, NewCampaign
from db.work_records import NewWork
from workers.guided import plan_guided
from workers.modes import GUIDED, RANDOM, guided_arguments, random_arguments
from workers.slices import cut, plan

AHEAD = 32
"""Slices of a campaign that wait: enough for as many workers to find one while the scheduler is away for two minutes."""


def works_ahead(campaign: NewCampaign | CampaignRow, numbers: range) -> list[NewWork]:
    """The planned work of these numbers, without those that come after the campaign's end."""
    return GROWING.get(campaign.arguments.get("mode", RANDOM), _nothing)(campaign, numbers)


def _random_works(campaign: NewCampaign | CampaignRow, numbers: range) -> list[NewWork]:
    """Slices of random cases."""
    cases, cores = campaign.arguments["cases"], tuple(campaign.arguments["cores"])
    profiles, seed, size = tuple(campaign.profiles), campaign.seed, campaign.slice_cases
    slices = [plan(campaign.targets, profiles, seed, size, number) for number in numbers]
    if cases is not None:
        slices = [part for part in (cut(each, size, cases) for each in slices) if part is not None]
    return [random_arguments(each, cores) for each in slices]


def _guided_works(campaign: NewCampaign | CampaignRow, numbers: range) -> list[NewWork]:
    """Guided slices."""
    cases, cores = campaign.arguments["cases"], tuple(campaign.arguments["cores"])
    profiles, seed, size = tuple(campaign.profiles), campaign.seed, campaign.slice_cases
    slices = (plan_guided(campaign.targets, profiles, cores, seed, size, cases, number) for number in numbers)
    return [guided_arguments(each) for each in slices if each is not None]


def _nothing(campaign: NewCampaign | CampaignRow, numbers: range) -> list[NewWork]:
    return []


Grow = Callable[[NewCampaign | CampaignRow, range], list[NewWork]]
GROWING: Mapping[str, Grow] = {RANDOM: _random_works, GUIDED: _guided_works}
"""The modes whose campaigns get slices as they go on; those of other modes are planned whole."""
