"""What Hugging Face makes of a chat template: jinja2 with the settings, filters and functions of transformers 5.

transformers compiles templates in an ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls and a `generation`
tag, and its own tojson, raise_exception, strftime_now, namespace and dict. This is the same from jinja2 alone.
"""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.utils


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError("underscore")


def environment(now):
    out = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    time = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(tzinfo=None)
    out.filters["tojson"] = tojson
    out.globals.update(raise_exception=raise_exception, strftime_now=time.strftime, namespace=Namespace,
                       dict=lambda *args, **kwargs: dict(*args, **kwargs))
    return out


def render(env, template, variables):
    """{"text"} or {"error", "raised"}"""
    try:
        return {"text": env.from_string(template).render(**json.loads(variables))}
    except Exception as error:  # whatever it is, it is the template's error
        return {"error": str(error), "type": type(error).__name__,
                "raised": type(error) is jinja2.exceptions.TemplateError}
