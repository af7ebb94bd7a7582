"""The federation at a glance, and what a run's terms may begin from, for operators and viewers."""

from fastapi import APIRouter

from services.coordinator.context import AnyContext
from services.coordinator.presets import PRESETS, preset_terms
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import Viewer
from shared.protocol.federation import FederationView, PresetList

router = APIRouter(tags=["federation"])


@router.get("/federation", summary="Look at the federation", responses=problems())
def get_federation(context: AnyContext, viewer: Viewer) -> FederationView:
    return context.overview.view(viewer)


@router.get("/presets", summary="List the presets of a run's terms", responses=problems())
def list_presets(_: Viewer) -> PresetList:
    return PresetList(presets=tuple(preset_terms(name) for name in PRESETS))
