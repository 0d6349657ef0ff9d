#!/usr/bin/env python3
"""Builds recorded Slack payloads anew with Slack's own models, and compares.

    check_slack_payloads.py FILE

FILE has a line of JSON for each call: {"method": .., "body": ..}. Every block and dialog is parsed by
slack_sdk.models, validated, and turned back into JSON, which must be what was sent: a field that
Slack's models do not know would be missing then, and a value they do not take raises.
"""

import json
import logging
import sys
import warnings

from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View


class Strict(logging.Handler):
    """The models only warn about what they do not know."""

    def emit(self, record):
        raise ValueError(record.getMessage())


def normal(value):
    """Without what the models add by themselves: empty lists of what was not given."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items() if inner != []}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    return value


def same(sent, rebuilt, where):
    if normal(sent) != normal(rebuilt):
        raise ValueError(f"{where}: sent {json.dumps(sent)}, the models say {json.dumps(rebuilt)}")


def check_blocks(blocks, where):
    for place, sent in enumerate(blocks):
        block = Block.parse(json.loads(json.dumps(sent)))
        if block is None:
            raise ValueError(f"{where}: block {place} is of no kind that Slack's models know")
        block.validate_json()
        for element in getattr(block, "elements", None) or []:
            if hasattr(element, "validate_json"):
                element.validate_json()
        if getattr(block, "text", None) is not None:
            block.text.validate_json()
        same(sent, block.to_dict(), f"{where}: block {place}")


def check(call, where):
    body = call["body"]
    if call["method"].startswith("chat."):
        if not body.get("text"):
            raise ValueError(f"{where}: nothing for notifications")
        check_blocks(body["blocks"], where)
        return len(body["blocks"])
    if call["method"] == "views.open":
        view = View(**json.loads(json.dumps(body["view"])))
        view.validate_json()
        check_blocks(body["view"]["blocks"], where)
        same(body["view"], view.to_dict(), where)
        return len(body["view"]["blocks"])
    return 0


def main():
    warnings.simplefilter("error")
    logging.getLogger("slack_sdk").addHandler(Strict())
    logging.getLogger().addHandler(Strict())
    calls = blocks = 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            call = json.loads(line)
            blocks += check(call, f"line {number}, {call['method']}")
            calls += 1
    if calls == 0:
        raise ValueError("no payloads")
    print(f"{calls} payloads with {blocks} blocks are as Slack's models would have them")


if __name__ == "__main__":
    main()
