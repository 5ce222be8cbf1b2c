"""The routes of Amazon Lookout for Vision that its clients call at run time.

A project is a model of the store, a model version is one of its versions: by its name, ``latest``, or its number from
the oldest on, beginning with 1. Only the served version scores.
"""

from bisect import bisect_right
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Query, Request

from app.api.http.deadline import deadline
from app.api.lookout import openapi as document
from app.api.lookout.mask import labels, mask, places_above
from app.api.lookout.schemas import (
    DescribeModelResponse,
    DescribeProjectResponse,
    DetectAnomaliesResponse,
    DetectAnomalyResult,
    ImageSource,
    ListModelsResponse,
    ListProjectsResponse,
    ModelMetadata,
    ModelPerformance,
    ProjectDescription,
    ProjectMetadata,
    StatusResponse,
)
from app.api.request_state import request_state
from app.api.scoring import answer, require_running
from app.api.services import RequestServices, Services
from app.inference.bundles.manifest import Evaluation, Manifest
from app.inference.errors import BundleRejected, UnknownModel, UnknownVersion
from app.inference.serving.scoring import Results

router = APIRouter(prefix="/2020-11-20/projects", tags=["lookout for vision"])

_LATEST: Final = "latest"
_MAX_PAGE: Final = 50  # each entry is a file to read
_BYTES_PER_VALUE: Final = 4  # of the mask as a PNG file and as base64
_MODEL: Final = "/{project}/models/{version}"

_MaxResults = Annotated[
    int, Query(alias="maxResults", gt=0, le=100, description=f"most entries; more than {_MAX_PAGE} are never given")
]
_NextToken = Annotated[str, Query(alias="nextToken", max_length=2048, description="`NextToken` of the page before")]
_T = TypeVar("_T")


@router.get("", summary="ListProjects", responses=document.PROJECTS, response_model_exclude_none=True)
async def list_projects(
    services: RequestServices, max_results: _MaxResults = _MAX_PAGE, next_token: _NextToken = ""
) -> ListProjectsResponse:
    """The models of the store, by name. A model whose manifest cannot be read is left out."""

    def page() -> ListProjectsResponse:
        names, token = _page(services.registry.store.names(), next_token, max_results)
        projects = []
        for name in names:
            try:
                projects.append(_project(services.registry.manifest(name)))
            except (BundleRejected, UnknownModel):  # one broken model must not hide the others
                continue
        return ListProjectsResponse(Projects=projects, NextToken=token)

    return await services.registry.access.run(page)


@router.get("/{project}", summary="DescribeProject", responses=document.PROJECT, response_model_exclude_none=True)
async def describe_project(services: RequestServices, project: str) -> DescribeProjectResponse:
    """A model of the store."""
    described = await _read(services, project, _project)
    return DescribeProjectResponse(ProjectDescription=ProjectDescription(**described.model_dump(), Datasets=[]))


@router.get("/{project}/models", summary="ListModels", responses=document.MODELS, response_model_exclude_none=True)
async def list_models(
    services: RequestServices, project: str, max_results: _MaxResults = _MAX_PAGE, next_token: _NextToken = ""
) -> ListModelsResponse:
    """The versions of a model, the newest first. A version whose manifest cannot be read is left out."""
    registry = services.registry

    def page() -> ListModelsResponse:
        registry.manifest(project)  # an unknown model is an error
        newest_first = [*reversed(registry.store.versions(project))]
        start = newest_first.index(next_token) + 1 if next_token in newest_first else 0
        versions = newest_first[start : start + min(max_results, _MAX_PAGE)]
        more = start + len(versions) < len(newest_first)
        models = []
        for version in versions:
            try:
                models.append(_model(services, registry.store.manifest(project, version)))
            except (BundleRejected, UnknownModel):
                continue
        return ListModelsResponse(Models=models, NextToken=versions[-1] if more else None)

    return await registry.access.run(page)


@router.get(_MODEL, summary="DescribeModel", responses=document.MODEL, response_model_exclude_none=True)
async def describe_model(services: RequestServices, project: str, version: str) -> DescribeModelResponse:
    """A version of a model. `HOSTED` is the served version while it is in memory."""
    registry = services.registry

    def describe() -> ModelMetadata:
        versions = registry.store.versions(project)
        current = registry.manifest(project)
        found = current.version if version == _LATEST else _numbered(versions, version)
        if found not in {current.version, *versions}:
            raise UnknownVersion(f"{project} has no version {version!r}")
        return _model(services, current if found == current.version else registry.store.manifest(project, found))

    return DescribeModelResponse(ModelDescription=await registry.access.run(describe))


@router.post(
    _MODEL + "/start",
    status_code=HTTPStatus.ACCEPTED,
    summary="StartModel",
    responses=document.HOSTING,
    response_model_exclude_none=True,
)
async def start_model(services: RequestServices, project: str, version: str) -> StatusResponse:
    """Loads the model, which the first request for it does as well. Inference units have no meaning here."""
    require_running(services)
    with await services.registry.get(project) as model:
        await _require_served(services, model.bundle.manifest, version)
    return StatusResponse(Status="HOSTED")


@router.post(
    _MODEL + "/stop",
    status_code=HTTPStatus.ACCEPTED,
    summary="StopModel",
    responses=document.HOSTING,
    response_model_exclude_none=True,
)
async def stop_model(services: RequestServices, project: str, version: str) -> StatusResponse:
    """Frees the memory of the model until the next request for it. The default model stays."""
    require_running(services)
    manifest = await _read(services, project, lambda manifest: manifest)
    await _require_served(services, manifest, version)
    hosted = not await services.registry.unload(project)
    return StatusResponse(Status="HOSTED" if hosted else "TRAINED")


@router.post(
    _MODEL + "/detect",
    summary="DetectAnomalies",
    responses=document.DETECT,
    openapi_extra=document.DETECT_REQUEST,
    response_model_exclude_none=True,
)
async def detect_anomalies(
    request: Request, services: RequestServices, project: str, version: str
) -> DetectAnomaliesResponse:
    """Scores the image in the body. Any format that `POST /score` reads is accepted, whatever the Content-Type says.

    `Confidence` is 1 − p of an anomaly and p of a normal image, where p is the conformal p-value of the image: the
    share of normal images that look at least as unusual.
    """
    require_running(services)
    with deadline(services.settings.request_timeout_s), await services.registry.get(project) as model:
        await _require_served(services, model.bundle.manifest, version)
        claim = request_state(request.scope).claim
        services.engine.require_room(model, client=claim.client)
        body = await services.body_reader.read_body(request.headers, request.receive, claim)
        result = await answer(
            services,
            request.scope,
            model,
            [body],
            model.bundle.operating_point(),
            _result,
            bytes_per_value=_BYTES_PER_VALUE,
            diagnose=False,
        )
    return DetectAnomaliesResponse(DetectAnomalyResult=result)


def _result(results: Results) -> DetectAnomalyResult:
    for rejected in results.rejected:
        raise rejected.reason
    (scored,) = results.scored
    anomalous = results.point.is_anomaly(scored.score)
    places = places_above(results, scored) if anomalous else None
    size = scored.size or (results.bundle.spec.width, results.bundle.spec.height)
    return DetectAnomalyResult(
        Source=ImageSource(),
        IsAnomalous=anomalous,
        Confidence=1 - scored.p_value if anomalous else scored.p_value,
        Anomalies=None if places is None else labels(places),
        AnomalyMask=None if places is None else mask(places, size),
    )


async def _require_served(services: Services, manifest: Manifest, version: str) -> None:
    if version in {_LATEST, manifest.version}:
        return
    store = services.registry.store
    versions = await services.registry.access.run(lambda: store.versions(manifest.name))
    if _numbered(versions, version) != manifest.version:
        raise UnknownVersion(f"{manifest.name} is served in version {manifest.version} only")


def _numbered(versions: list[str], version: str) -> str:
    """The version with a number, from 1 for the oldest; other names as they are."""
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0  # noqa: PLR2004
    return versions[number - 1] if 0 < number <= len(versions) else version


async def _read(services: Services, project: str, read: Callable[[Manifest], _T]) -> _T:
    return await services.registry.access.run(lambda: read(services.registry.manifest(project)))


def _page(names: list[str], after: str, most: int) -> tuple[list[str], str | None]:
    start = bisect_right(names, after)
    page = names[start : start + min(most, _MAX_PAGE)]
    return page, page[-1] if start + len(page) < len(names) else None


def _project(manifest: Manifest) -> ProjectMetadata:
    return ProjectMetadata(
        ProjectArn=f"arn:aws:lookoutvision:::project/{manifest.name}",
        ProjectName=manifest.name,
        CreationTimestamp=manifest.created_at.timestamp(),
    )


def _model(services: Services, manifest: Manifest) -> ModelMetadata:
    served = {(each.bundle.manifest.name, each.bundle.manifest.version) for each in services.registry.served}
    hosted = (manifest.name, manifest.version) in served
    return ModelMetadata(
        CreationTimestamp=manifest.created_at.timestamp(),
        ModelVersion=manifest.version,
        ModelArn=f"arn:aws:lookoutvision:::model/{manifest.name}/{manifest.version}",
        Description=manifest.promise,
        Status="HOSTED" if hosted else "TRAINED",
        StatusMessage="in memory" if hosted else "in the store",
        Performance=_performance(manifest.evaluation),
    )


def _performance(evaluation: Evaluation | None) -> ModelPerformance | None:
    """Figures for anomalies, from the rates on the test images."""
    if evaluation is None or evaluation.detection_rate is None or evaluation.false_alarm_rate is None:
        return None
    found = evaluation.detection_rate * evaluation.anomalies
    flagged = found + evaluation.false_alarm_rate * evaluation.normal
    precision, recall = (found / flagged if flagged else 0.0), evaluation.detection_rate
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return ModelPerformance(F1Score=f1, Recall=recall, Precision=precision)
