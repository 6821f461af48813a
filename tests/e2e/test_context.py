"""A long conversation through the running service: what its summary answers, and what its traces tell."""

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.cluster


def test_a_long_conversation_is_summarised_and_its_prompts_keep_their_beginning(brain):
    conversation = brain.conversation(system_prompt="Be kind.")
    path = f"/api/v1/conversations/{conversation}/summary"
    filler = "there are lamps of all kinds in the shop " * 20
    shares = []
    for n in range(16):
        text = f"And lamp {n}? {filler}" if n else "My name is Ada Quist and I am allergic to zinc."
        answer = brain.send(conversation, text, model="small").json()
        context = brain.http.get(f"/api/v1/turns/{answer['turn']['id']}/trace").json()["context"]
        told = {(one["kind"], one["included"]): one["tokens"] for one in context["elements"]}
        shares.append(context["shared_prefix_tokens"] / sum(tokens for (_, yes), tokens in told.items() if yes))
        if n == 0:
            short = brain.http.get(path).json()
            assert short["summary"].startswith("- User: My name is Ada Quist and I am allergic to zinc.")
    assert context["counted_by"] == "estimate" and told["summary", True] > 0 and told["facts", True] > 0
    assert sum(share < 0.5 for share in shares[4:]) == 1, "one block went"
    stored = wait_until(lambda: (found := brain.http.get(path).json())["up_to_seq"] < 32 and found, what="the summary")
    assert {"key": "name", "value": "Ada Quist", "seq": 1} in stored["facts"]
    assert (stored["object"], stored["conversation_id"]) == ("conversation.summary", conversation)
    assert stored["made_by"] == "extractive" and stored["up_to_seq"] > 2
