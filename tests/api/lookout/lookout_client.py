"""Calls a server with Amazon's client. Runs in an environment that has boto3 with ``lookoutvision`` (1.40.60).

Arguments: the server's address, an access key id, a model, an image file of an anomaly, one of a normal image.
Prints what the client received, as JSON.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def plain(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name != "ResponseMetadata"}


def failure(call: Any, **arguments: Any) -> dict[str, Any]:
    try:
        call(**arguments)
    except ClientError as error:
        return {
            "class": type(error).__name__,
            "code": error.response["Error"]["Code"],
            "message": error.response["Error"]["Message"],
            "status": error.response["ResponseMetadata"]["HTTPStatusCode"],
            "resource": error.response.get("ResourceType"),
        }
    return {}


def call_server(url: str, key: str, model: str, *files: str) -> dict[str, Any]:
    def connect(key_id: str) -> Any:
        return boto3.client(
            "lookoutvision",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id=key_id,
            aws_secret_access_key="not verified",
            config=Config(retries={"max_attempts": 1}),
        )

    client = connect(key)
    projects = client.list_projects()["Projects"]
    pages = [
        page["Projects"] for page in client.get_paginator("list_projects").paginate(PaginationConfig={"PageSize": 1})
    ]
    models = client.list_models(ProjectName=model)["Models"]
    version = models[0]["ModelVersion"]
    named = {"ProjectName": model, "ModelVersion": version}

    def detect(file: str, content_type: str = "image/png", **where: Any) -> Any:
        with Path(file).open("rb") as body:
            return client.detect_anomalies(Body=body, ContentType=content_type, **{**named, **where})[
                "DetectAnomalyResult"
            ]

    results = [detect(file) for file in files]
    for result in results:
        if "AnomalyMask" in result:
            result["AnomalyMask"] = base64.b64encode(result["AnomalyMask"]).decode()
    return {
        "projects": [each["ProjectName"] for each in projects],
        "pages": [[each["ProjectName"] for each in page] for page in pages],
        "project": plain(client.describe_project(ProjectName=model)),
        "versions": [each["ModelVersion"] for each in models],
        "model": plain(client.describe_model(**named))["ModelDescription"],
        "created": models[0]["CreationTimestamp"].year,
        "start": client.start_model(**named, MinInferenceUnits=1)["Status"],
        "stop": client.stop_model(**named)["Status"],
        "results": results,
        "first": detect(files[0], "image/jpeg", ModelVersion="1")["IsAnomalous"],
        "latest": detect(files[0], ModelVersion="latest")["IsAnomalous"],
        "unknown_project": failure(client.describe_project, ProjectName="nothing"),
        "unknown_version": failure(detect, file=files[0], ModelVersion="7"),
        "no_image": failure(client.detect_anomalies, **named, Body=b"no image", ContentType="image/png"),
        "wrong_key": failure(connect("WRONG").list_projects),
    }


if __name__ == "__main__":
    print(json.dumps(call_server(*sys.argv[1:]), default=str))
