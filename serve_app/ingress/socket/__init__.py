"""`/api/v1/ws`: many conversations over one WebSocket (docs/websocket.md)."""
