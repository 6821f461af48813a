"""How the service is, for people, load balancers and Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from domain.errors import Unavailable
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsHealth
from serve_app.ingress.parts import parts_of
from serve_app.ingress.service_answers import DetailedHealth, HealthAnswer, LiveAnswer

router = APIRouter(tags=["health"])


@router.get("/health", response_model=None, responses={200: {"model": HealthAnswer}})
async def health(request: Request) -> Response:
    return Answer({"status": "ok", "version": parts_of(request).settings.version})


@router.get("/health/live", response_model=None, responses={200: {"model": LiveAnswer}})
async def live() -> Response:
    return Answer({"status": "ok"})


@router.get("/health/ready", response_model=None, responses={200: {"model": LiveAnswer}})
async def ready(request: Request) -> Response:
    """503 before the first start is complete and while draining, never because a dependency is down."""
    if parts_of(request).ready():
        return Answer({"status": "ok"})
    raise Unavailable("starting or stopping")


@router.get("/health/detailed", response_model=None, responses={200: {"model": DetailedHealth}})
async def detailed(request: Request, who: ReadsHealth) -> Response:
    """Each component: whether it answers, its latency in milliseconds, and its last error."""
    parts = parts_of(request)
    components = await parts.vitals.measure()
    fine = all(component["status"] == "ok" for component in components.values())
    status = "ok" if fine else "degraded"
    return Answer({"status": status, "version": parts.settings.version, "components": components})


@router.get("/metrics", response_model=None, response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus text of the whole service."""
    return PlainTextResponse(await parts_of(request).metrics(), media_type="text/plain; version=0.0.4")
