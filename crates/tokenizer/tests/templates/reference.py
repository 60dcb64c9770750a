"""Writes expected.json: what Python's Jinja2 makes of cases.json, set up as Hugging Face transformers does.

Needs jinja2 3.1. Run it after a change of a template or a case, and read the difference.
"""

import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    """`{% generation %}`: shows what it encloses."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class Raised(Exception):
    """The template called raise_exception."""


def raise_exception(message):
    raise Raised(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def prepared(message):
    """What the server does before it renders: no null contents, arguments as objects."""
    message = json.loads(json.dumps(message))
    if message.get("content") is None:
        message["content"] = ""
    for call in message.get("tool_calls", []):
        if isinstance(call["function"]["arguments"], str):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return message


def main():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    expected = []
    for case in json.loads((HERE / "cases.json").read_text()):
        template = environment.from_string((HERE / f"{case['template']}.jinja").read_text())
        variables = {"bos_token": "<s>", "eos_token": "</s>", "documents": None, **case.get("extra", {})}
        variables["messages"] = [prepared(message) for message in case["messages"]]
        variables["tools"] = case.get("tools")
        variables["add_generation_prompt"] = case["add_generation_prompt"]
        try:
            expected.append({"prompt": template.render(**variables)})
        except Raised as raised:
            expected.append({"rejected": str(raised)})
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
