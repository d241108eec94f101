"""A webhook that is signed, and a schedule: `dspy-cli serve examples/gateways.py`."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any

import dspy
from dspy_cli.gateways import APIGateway, CronGateway, Refuse, Request


class Issues(APIGateway):
    path = "/webhooks/github"
    requires_auth = False  # GitHub signs what it sends instead

    def to_pipeline_inputs(self, request: Request) -> Mapping[str, Any]:
        secret = os.environ["GITHUB_WEBHOOK_SECRET"].encode()
        signature = "sha256=" + hmac.new(secret, request.body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(
            signature.encode(), request.headers.get("x-hub-signature-256", "").encode()
        ):
            raise Refuse(401, "Wrong signature.")
        return {"text": request["issue"]["title"]}


class Hourly(CronGateway):
    schedule = "0 * * * *"

    async def get_pipeline_inputs(self) -> list[dict[str, Any]]:
        return [{"text": "Where is my order?", "_id": 7}]

    async def on_complete(self, inputs: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        print(inputs["_id"], output["label"])


class Label(dspy.Predict):
    gateway = Issues

    def __init__(self) -> None:
        super().__init__("text -> label")


class Triage(dspy.ChainOfThought):
    gateway = Hourly

    def __init__(self) -> None:
        super().__init__("text -> label")
