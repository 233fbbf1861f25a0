"""What the tests of this folder share: running jobs, reading their files, the openai package."""
import json
import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
BUILD = pathlib.Path(sys.argv[1]).resolve().parent
MODEL = REPOSITORY / "data/tiny-moe"
SCHEMA = json.loads((pathlib.Path(__file__).parent / "schema.json").read_text())
TIMEOUT = 300  # of a job, on a machine that is busy


class Failure(Exception):
    pass


class Skipped(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failure(what)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def chat(custom_id, content="Say it", **body):
    messages = body.pop("messages", [{"role": "user", "content": content}])
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"model": "tiny-moe", "messages": messages, **body}}


def completion(custom_id, prompt="Once upon a time", **body):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"model": "tiny-moe", "prompt": prompt, **body}}


def job_file(work, rows, **sections):
    """Writes WORK/job.yaml (and its input, where there are rows): the tiny model on the CPU, with `sections` on top."""
    job = {"model": {"path": str(MODEL)}, "device": "cpu", "input": {"path": str(work / "in.jsonl")}, "sampling": {"max_tokens": 4},
           "output": {"path": str(work / "out.h5"), "jsonl": str(work / "out.jsonl")}}
    for key, value in sections.items():
        job[key] = {**job.get(key, {}), **value} if isinstance(value, dict) else value
    if rows is not None:
        write_lines(work / "in.jsonl", rows)
    (work / "job.yaml").write_text(json.dumps(job))
    return work / "job.yaml"


def moerun(*arguments, code=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    expect(done.returncode == code, f"moerun {' '.join(map(str, arguments))}: exit code {done.returncode}, not {code}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done


def templated(work, name="model"):
    """A copy of the tiny model with a chat template that shows tools, and how they are called."""
    model = work / name
    model.mkdir()
    for file in MODEL.iterdir():
        os.symlink(file, model / file.name)
    (model / "chat_template.jinja").write_text(
        "{%- if tools %}{{ tools | tojson }} as <tool_call>{\"name\": …}</tool_call>\n{% endif %}{%- for message in messages %}[{{ message.role }}] {{ message.content }}"
        "{%- for call in message.tool_calls or [] %}{% for key, value in call.function.arguments | items %}{{ key }}={{ value }};{% endfor %}{% endfor %}\n{% endfor %}")
    return model


def openai_types():
    """OpenAI's package in a virtual environment of its own, as (ChatCompletion, Completion)."""
    folder = BUILD / "venv-openai"
    stamp = folder / "complete"
    if not stamp.exists():
        made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True, timeout=TIMEOUT)
        if made.returncode == 0:
            made = subprocess.run([folder / "bin/pip", "install", "-q", "--disable-pip-version-check", "openai"], capture_output=True, text=True, timeout=TIMEOUT)
        if made.returncode != 0:
            raise Skipped(f"the package openai could not be installed ({(made.stderr or made.stdout).strip().splitlines()[-1:]})")
        stamp.touch()
    sys.path.append(str(next(folder.glob("lib/python*/site-packages"))))
    from openai.types import Completion
    from openai.types.chat import ChatCompletion
    return ChatCompletion, Completion


def validator():
    import jsonschema
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)
