"""Other ways to a program than `POST /{program}`, declared on its module as `gateway = MyGateway`."""

from dspy_cli.gateways.api import APIGateway, Refuse, Request
from dspy_cli.gateways.base import Gateway
from dspy_cli.gateways.cron import CronGateway

__all__ = ["APIGateway", "CronGateway", "Gateway", "Refuse", "Request"]
