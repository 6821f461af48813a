"""The application: routes, errors, and what stands around every request."""

from fastapi import FastAPI

from serve_app.ingress import (
    admin_caches,
    admin_events,
    admin_models,
    administration,
    authorize,
    catalog,
    catalog_source,
    channel_inbound,
    channels,
    chat,
    clients,
    conversation_channels,
    conversations,
    embeddings,
    events,
    export,
    feedback,
    health,
    intent_training,
    intents,
    keys,
    mcp_endpoint,
    memory,
    message_intents,
    messages,
    model_settings,
    model_test,
    models,
    oauth,
    openai_models,
    privacy,
    roles,
    sends,
    sign_in,
    signing,
    tenants,
    tools,
    turns,
    usage,
    user_history,
    user_sessions,
    users,
    webhooks,
    widget_page,
    widget_sessions,
)
from serve_app.ingress.docs_page import ROUTES
from serve_app.ingress.documents import describe
from serve_app.ingress.errors import add_error_answers
from serve_app.ingress.middleware import Around
from serve_app.ingress.parts import Parts
from serve_app.ingress.socket import endpoint, tickets

_ROUTERS = (  # the busiest first: routes are tried in this order
    sends.router,
    chat.router,
    channel_inbound.router,
    conversations.router,
    export.router,
    memory.router,  # before `/messages/{message_id}`
    messages.router,
    message_intents.router,
    intent_training.router,
    intents.router,
    catalog.router,
    catalog_source.router,
    feedback.router,
    turns.router,
    tickets.router,
    model_test.router,
    models.router,
    model_settings.router,
    openai_models.router,
    embeddings.router,
    keys.admin,
    keys.own,
    roles.router,
    roles.permissions,
    tenants.admin,
    tenants.own,
    administration.router,
    admin_models.router,
    admin_caches.router,
    admin_events.router,
    events.router,
    usage.router,
    sign_in.router,
    users.router,
    user_history.router,
    user_sessions.router,
    clients.router,
    oauth.router,
    authorize.router,
    signing.router,
    webhooks.router,
    channels.router,
    conversation_channels.router,
    tools.router,
    mcp_endpoint.router,
    privacy.router,
    privacy.public,
    widget_sessions.router,
    health.router,
)


def create_app(parts: Parts) -> FastAPI:
    """The ASGI application of one replica, over `parts`."""
    app = FastAPI(
        title="The Brain",
        version=parts.settings.version,
        description="A multi-tenant chat service: conversations, turns, streams, and an OpenAI-compatible API.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for router in _ROUTERS:
        app.include_router(router)
    app.router.routes.extend((*ROUTES, *widget_page.ROUTES))
    add_error_answers(app)
    app.add_middleware(Around, settings=parts.settings, sockets=endpoint.sockets_of(app, parts))
    describe(app)
    return app
