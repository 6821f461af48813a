"""Webhooks: where a tenant's events are sent."""

import secrets

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.deliveries import DeliveryStatus
from domain.ids import new_id
from domain.subscribers import DeliveryEntry, Webhook
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ManagesWebhooks
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.outward_bodies import (
    DeletedSubscriber,
    DeliveryList,
    WebhookCreate,
    WebhookList,
    WebhookPatch,
    WithSecret,
    check_content,
    check_where,
    shown,
)
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import outward_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.sessions import NO_STORE
from storage.subscribers import New

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": WithSecret}},
    openapi_extra=takes(WebhookCreate, creates=True),
)
async def create_webhook(request: Request, who: ManagesWebhooks) -> Response:
    """Send events to a URL from now on, signed by Standard Webhooks. This answer alone shows the secret."""
    outward = outward_of(request)
    body, key = checked(WebhookCreate, await request.body(), strict=True), idempotency_key(request)
    check_where(body.url, outward.allowed)
    if body.include_content:
        check_content(who)
    new = New(new_id("whk"), body.model_dump(), key=key, body_hash=body_hash("webhooks", body))
    made, secret, replayed = await outward.webhooks.create(who, new)
    return Answer({**shown(made), "secret": secret}, 201, {**NO_STORE, **(REPLAYED if replayed else {})})


@router.get("", response_model=None, responses={200: {"model": WebhookList}})
async def list_webhooks(request: Request, who: ManagesWebhooks, page: NewestFirst) -> Response:
    """The tenant's webhooks, newest first."""
    if page.after is not None:
        known(page.after, "whk", "webhook")
    return page_answer(await outward_of(request).webhooks.page(who.tenant, page), shown)


@router.get("/{webhook_id}", response_model=None, responses={200: {"model": Webhook}})
async def get_webhook(request: Request, who: ManagesWebhooks, webhook_id: str) -> Response:
    known(webhook_id, "whk", "webhook")
    return Answer(shown(await outward_of(request).webhooks.one(who.tenant, webhook_id)))


@router.patch(
    "/{webhook_id}", response_model=None, responses={200: {"model": Webhook}}, openapi_extra=takes(WebhookPatch)
)
async def change_webhook(request: Request, who: ManagesWebhooks, webhook_id: str) -> Response:
    """Set the given fields. What waits when it is disabled is given up; made active again it hears what comes then."""
    outward = outward_of(request)
    known(webhook_id, "whk", "webhook")
    body = checked(WebhookPatch, await request.body(), strict=True)
    values = {name: value for name, value in body.model_dump(exclude_unset=True).items() if name != "status"}
    if wrong := [name for name, value in values.items() if value is None and name != "description"]:
        raise Problem(422, f"{wrong[0]}: must not be null", wrong[0])
    if body.url is not None:
        check_where(body.url, outward.allowed)
    found = await outward.webhooks.one(who.tenant, webhook_id)
    if values and (values.get("include_content", found.include_content)):
        check_content(who)
    if values:
        found = await outward.webhooks.change(who, webhook_id, values)
    if body.status is not None and body.status != found.status:
        move = outward.webhooks.enable if body.status == "active" else outward.webhooks.disable
        found = await move(who, webhook_id)
    return Answer(shown(found))


@router.delete("/{webhook_id}", response_model=None, responses={200: {"model": DeletedSubscriber}})
async def delete_webhook(request: Request, who: ManagesWebhooks, webhook_id: str) -> Response:
    """Send nothing more there, and forget its log."""
    known(webhook_id, "whk", "webhook")
    await outward_of(request).webhooks.delete(who, webhook_id)
    return Answer({"id": webhook_id, "object": "webhook", "deleted": True})


@router.post("/{webhook_id}/rotate-secret", response_model=None, responses={200: {"model": WithSecret}})
async def rotate_secret(request: Request, who: ManagesWebhooks, webhook_id: str) -> Response:
    """Sign with a new secret, which this answer alone shows; the old one signs, too, for 24 hours."""
    known(webhook_id, "whk", "webhook")
    found, secret, replayed = await outward_of(request).webhooks.rotate(
        who, webhook_id, secrets.token_bytes(32), idempotency_key(request)
    )
    return Answer({**shown(found), "secret": secret}, 200, {**NO_STORE, **(REPLAYED if replayed else {})})


@router.post("/{webhook_id}/test", status_code=202, response_model=None, responses={202: {"model": DeliveryEntry}})
async def try_webhook(request: Request, who: ManagesWebhooks, webhook_id: str) -> Response:
    """Send it an event of the type `webhook.test`; the log tells what came of it."""
    known(webhook_id, "whk", "webhook")
    return Answer(shown(await outward_of(request).webhook_log.trial(who, webhook_id)), 202)


@router.get("/{webhook_id}/deliveries", response_model=None, responses={200: {"model": DeliveryList}})
async def list_deliveries(
    request: Request, who: ManagesWebhooks, webhook_id: str, page: NewestFirst, status: DeliveryStatus | None = None
) -> Response:
    """What was sent, or waits to be, newest first; kept for 30 days."""
    known(webhook_id, "whk", "webhook")
    if page.after is not None:
        known(page.after, "dlv", "delivery")
    return page_answer(await outward_of(request).webhook_log.page(who.tenant, webhook_id, page, status), shown)


@router.get("/{webhook_id}/deliveries/{delivery_id}", response_model=None, responses={200: {"model": DeliveryEntry}})
async def get_delivery(request: Request, who: ManagesWebhooks, webhook_id: str, delivery_id: str) -> Response:
    known(webhook_id, "whk", "webhook")
    known(delivery_id, "dlv", "delivery")
    return Answer(shown(await outward_of(request).webhook_log.one(who.tenant, webhook_id, delivery_id)))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=None,
    responses={202: {"model": DeliveryEntry}},
)
async def redeliver(request: Request, who: ManagesWebhooks, webhook_id: str, delivery_id: str) -> Response:
    """Send it again, whatever came of it before: a delivery of its own, with the same `webhook-id`."""
    known(webhook_id, "whk", "webhook")
    known(delivery_id, "dlv", "delivery")
    return Answer(shown(await outward_of(request).webhook_log.repeat(who, webhook_id, delivery_id)), 202)
