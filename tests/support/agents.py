"""Whose pages an agent of the federation in memory serves."""

from bench.federation import FEDERATION
from services.client_agent.pages import Installation
from services.client_agent.policy import Policy

ADA = Installation("ada", FEDERATION, "https://coordinator.example:8440", Policy())
