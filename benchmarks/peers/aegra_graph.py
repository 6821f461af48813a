"""The LangGraph graph that Aegra serves in the comparison: one chat node over an OpenAI-compatible provider.

Runs inside Aegra's own virtual environment; nothing of this project imports it.
"""

import os
from functools import cache
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph


@cache
def chat_model(name: str) -> ChatOpenAI:
    """One client (and its connection pool) a model, as a production graph would keep it."""
    return ChatOpenAI(
        model=name,
        base_url=os.environ["BENCH_PROVIDER_URL"],
        api_key=os.environ["BENCH_PROVIDER_KEY"],
        streaming=True,
        max_retries=0,
    )


async def chat(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    """Ask the model named in the run's configuration with the whole thread."""
    reply = await chat_model(config["configurable"]["model"]).ainvoke(state["messages"], config)
    return {"messages": [reply]}


builder = StateGraph(MessagesState)
builder.add_node("chat", chat)
builder.add_edge(START, "chat")
builder.add_edge("chat", END)
graph = builder.compile()
