"""The table of jobs and inputs that must be refused (tests/bad_input/run)."""
import dataclasses
import json
import os
import pathlib
import shutil
import struct
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "data/tiny-moe"
PROMPTS_H5 = REPOSITORY / "data/prompts.h5"
SHARD = "model-00002-of-00003.safetensors"
GOOD = '{"id": "a", "prompt": "Once upon a time"}\n'


@dataclasses.dataclass
class Case:
    name: str
    expect: list[str]  # parts of what is printed, in no order; `in.jsonl:3: …` names file and line
    job: str = ""  # lines added to (or, whole=True, instead of) the job
    whole: bool = False
    input: str | bytes = GOOD
    input_name: str = "in.jsonl"
    arguments: tuple = ()  # overrides on the command line
    prepare: object = None  # called with the case's folder
    runs: bool = False  # also started as a job on two ranks
    checks: bool = True  # `moerun check` refuses it


def job_text(case):
    if case.whole:
        return case.job.replace("MODEL", str(MODEL))
    return (f"model: {{path: {MODEL}}}\n"  # line 1
            f"input: {{path: {case.input_name}}}\n"  # line 2
            "output: {path: out.h5, jsonl: out.jsonl}\n"  # line 3
            "device: cpu\n"  # line 4
            + case.job)  # from line 5 on


def model_with(changes):
    """Makes ./model: the tiny model's configuration with changes, without weights."""
    def prepare(folder):
        (folder / "model").mkdir()
        config = json.loads((MODEL / "config.json").read_text())
        config.update(changes)
        (folder / "model/config.json").write_text(json.dumps(config))
        shutil.copy(MODEL / "tokenizer.json", folder / "model")
    return prepare


FIRST_SHARD, LAST_SHARD = (f"model-0000{i}-of-00003.safetensors" for i in (1, 3))
INDEX = "model.safetensors.index.json"
NORM = "model.norm.weight"


def checkpoint_with(damage, shard=LAST_SHARD):
    """Makes ./model: the tiny model, a shard of which `damage` has changed."""
    def prepare(folder):
        (folder / "model").mkdir()
        for path in MODEL.iterdir():
            changed = path.name in (shard, INDEX)
            (shutil.copy if changed else os.symlink)(path, folder / "model" / path.name)
        damage(folder / "model" / shard)
    return prepare


def cut_to(keep):
    """Leaves so many bytes of a file; the last so many go when negative."""
    return lambda path: path.write_bytes(path.read_bytes()[:keep])


def rewrite_header(path, change):
    """Lets `change` edit a safetensors file's header."""
    data = path.read_bytes()
    length, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


def header_with(tensor, **changes):
    """Changes a tensor's entry in a safetensors file's header."""
    return lambda path: rewrite_header(path, lambda header: header[tensor].update(changes))


def rewrite_index(path, change):
    """Lets `change` edit the index beside a shard: tensor → file."""
    index = path.parent / INDEX
    contents = json.loads(index.read_text())
    change(contents["weight_map"])
    index.write_text(json.dumps(contents))


def promise(tensor):
    """Puts a tensor into the index that the shard does not have."""
    return lambda path: rewrite_index(path, lambda files: files.update({tensor: path.name}))


def drop(tensor):
    """Takes a tensor out of a shard, with its bytes, and out of the index."""
    def damage(path):
        data = path.read_bytes()
        length, = struct.unpack_from("<Q", data)
        begin, end = json.loads(data[8:8 + length])[tensor]["data_offsets"]
        path.write_bytes(data[:8 + length + begin] + data[8 + length + end:])

        def change(header):
            header.pop(tensor)
            for entry in header.values():
                if "data_offsets" in entry and entry["data_offsets"][0] >= end:
                    entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]
        rewrite_header(path, change)
        rewrite_index(path, lambda files: files.pop(tensor))
    return damage


def overlapping(path):
    """A tensor of the file lies where another of its shape does."""
    def change(header):
        names = [name for name in header if name != "__metadata__"]
        first, second = next((a, b) for a in names for b in names if a < b and header[a]["shape"] == header[b]["shape"])
        header[second]["data_offsets"] = header[first]["data_offsets"]
    rewrite_header(path, change)


def extra_shard(folder):
    """The index puts a tensor into a file that repeats another of the last shard."""
    checkpoint_with(lambda path: None)(folder)
    data = (MODEL / LAST_SHARD).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + length])[NORM]["data_offsets"]
    tensor = data[8 + length + begin:8 + length + end]
    header = json.dumps({NORM: {"dtype": "BF16", "shape": [256], "data_offsets": [0, 512]}}).encode()
    (folder / "model/extra.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + tensor)
    index = json.loads((MODEL / INDEX).read_text())
    index["weight_map"]["extra"] = "extra.safetensors"
    (folder / "model" / INDEX).unlink()
    (folder / "model" / INDEX).write_text(json.dumps(index))


def edited_model(edit):
    """Makes ./model: the tiny model, after `edit` of that folder. (Its weights are links until they are replaced.)"""
    def prepare(folder):
        model = folder / "model"
        model.mkdir()
        for path in MODEL.iterdir():
            (model / path.name).symlink_to(path)
        edit(model)
    return prepare


def replaced(name, change):
    """For edited_model: the named file with other bytes."""
    def edit(model):
        data = change((model / name).read_bytes())
        (model / name).unlink()
        (model / name).write_bytes(data)
    return edited_model(edit)


def configured(**changes):
    return replaced("config.json", lambda data: json.dumps({**json.loads(data), **changes}).encode())


FP8 = "model.layers.3.self_attn.o_proj"  # of checkpoints in FP8, the one matrix that is
BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
          "modules_to_not_convert": ["lm_head", *(f"model.layers.{i}" for i in range(3)), "model.layers.3.mlp", "q_proj", "k_proj", "v_proj"]}
CHANNELS = {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
    "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False},
    "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}}}}


def in_fp8(scales=(2, 4), dtype="F32", first=1.0, renamed="weight_scale_inv", config=BLOCKS):
    """Makes ./model: the tiny model with one matrix in 8 bits, its scales of this shape, the first of them `first`."""
    def damage(path):
        data = path.read_bytes()
        length, = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + length])
        parts = {name: (entry, data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]])
                 for name, entry in header.items() if name != "__metadata__"}
        values = parts[FP8 + ".weight"][0] | {"dtype": "F8_E4M3"}
        parts[FP8 + ".weight"] = values, b"\x38" * (256 * 512)  # ones
        count = scales[0] * scales[1]
        parts[f"{FP8}.{renamed}"] = {"dtype": dtype, "shape": list(scales)}, struct.pack("<f", first) + struct.pack("<f", 1.0) * (count - 1)
        at, out = 0, {}
        for name, (entry, raw) in parts.items():
            out[name] = entry | {"data_offsets": [at, at + len(raw)]}
            at += len(raw)
        text = json.dumps(out).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(raw for _, raw in parts.values()))
        rewrite_index(path, lambda files: files.update({f"{FP8}.{renamed}": path.name}))

    def prepare(folder):
        checkpoint_with(damage)(folder)
        text = json.loads((MODEL / "config.json").read_text()) | {"quantization_config": config}
        (folder / "model/config.json").unlink()
        (folder / "model/config.json").write_text(json.dumps(text))
    return prepare


def cut_h5(keep):
    def prepare(folder):
        data = PROMPTS_H5.read_bytes()
        (folder / "in.h5").write_bytes(data[:int(len(data) * keep)])
    return prepare


def h5_with(*copies):
    """Makes in.h5 of datasets of data/prompts.h5 under other names."""
    def prepare(folder):
        for source, name in copies:
            subprocess.run(["h5copy", "-p", "-i", PROMPTS_H5, "-o", folder / "in.h5", "-s", source, "-d", name],
                           check=True, capture_output=True)
    return prepare


def rubbish_in_h5(folder):
    data = bytearray(PROMPTS_H5.read_bytes())
    data[200:4000] = b"\xff" * 3800
    (folder / "in.h5").write_bytes(data)


def unwritable(folder):
    # A file system without room for a file: root may write to any directory, but not here.
    os.symlink("/proc/self", folder / "closed")


def openai(more, **line):
    """A batch line whose body has `more`; fields of the line that are None are left out."""
    fields = {"custom_id": "r", "method": "POST", "url": "/v1/completions",
              "body": {"model": "tiny-moe", "prompt": "Hi", **more}, **line}
    return json.dumps({k: v for k, v in fields.items() if v is not None}) + "\n"


def chat(**body):
    return openai({}, url="/v1/chat/completions",
                  body={"model": "tiny-moe", "messages": [{"role": "user", "content": "Hi"}], **body})


DUMMY = ("job.yaml", "model={path: model, load_format: dummy}")
COPIED = ("job.yaml", "model={path: model}")

CASES = [
    # The job file.
    Case("the job is absent", ["none.yaml cannot be read: No such file"], arguments=("none.yaml",)),
    Case("the job is empty", ["job.yaml:1: model.path is missing", "job.yaml:1: output.path is missing",
                              "job.yaml:1: input.path (or input.random) is missing"], "", whole=True),
    Case("the job is no YAML", ["job.yaml:2: not YAML: "], "model: [1\nb: 2\n", whole=True),
    Case("the job is not UTF-8", ["job.yaml:1: byte 3 is no valid UTF-8"], "# \u00fc\n", whole=True,
         prepare=lambda folder: (folder / "job.yaml").write_bytes(b"# a\xff\n")),
    Case("the job is a list", ["job.yaml:1: a job is a mapping of keys to values"], "- a\n", whole=True),
    Case("an unknown key", ["job.yaml:5: there is no key samplng; did you mean sampling?"], "samplng: {seed: 1}\n"),
    Case("an unknown key in a section", ["job.yaml:6: there is no key sampling.max_token; did you mean sampling.max_tokens?"],
         "sampling:\n  max_token: 5\n", runs=True),
    Case("a key in no section", ["job.yaml:5: there is no key temperature; did you mean sampling.temperature?"],
         "temperature: 1\n"),
    Case("a key twice", ["job.yaml:7: sampling.seed is given twice, first at job.yaml:6"],
         "sampling:\n  seed: 1\n  seed: 2\n"),
    Case("a wrong type", ["job.yaml:5: parallel.tensor must be an integer from 1 to 65536, not \"two\""],
         "parallel: {tensor: two}\n"),
    Case("no answers", ["job.yaml:5: sampling.n must be an integer from 1 to 16384, not 0"], "sampling: {n: 0}\n"),
    Case("several answers where none is asked for", ["job.yaml:5: sampling: n (4) asks for several answers, and max_tokens (0) for none"],
         "sampling: {n: 4, max_tokens: 0, prompt_logprobs: true}\n"),
    Case("a value out of range", ["job.yaml:5: sampling.top_p must be a number above 0 and at most 1, not 1.5"],
         "sampling: {top_p: 1.5}\n"),
    Case("a negative seed", ["job.yaml:5: sampling.seed must be an integer from 0"], "sampling: {seed: -1}\n"),
    Case("too many log-probabilities", ["job.yaml:5: sampling.logprobs must be null or an integer from 0 to 20, not 21"],
         "sampling: {logprobs: 21}\n"),
    Case("an empty stop string", ["job.yaml:5: sampling.stop must be a text or a list of texts that are not empty"],
         "sampling: {stop: ['']}\n"),
    Case("an unknown word", ["job.yaml:5: model.dtype must be one of auto, float16, half, bfloat16, float32, not \"int4\""],
         "\n\ninput: {path: in.jsonl}\noutput: {path: out.h5}\nmodel: {path: MODEL, dtype: int4}\n", whole=True),
    Case("an empty value", ["job.yaml:5: sampling.seed has no value"], "sampling: {seed: }\n"),
    Case("a block size that is no power of two", ["job.yaml:5: memory.block_size must be a power of two"],
         "memory: {block_size: 48}\n"),
    Case("a time that is none", ["job.yaml:5: limits.time must be seconds or \"H:MM:SS\", not \"3:99:00\""],
         "limits: {time: 3:99:00}\n"),
    Case("contradicting lengths", ["job.yaml:5: sampling: min_tokens (9) is more than max_tokens (8)"],
         "sampling: {max_tokens: 8, min_tokens: 9}\n"),
    Case("an unknown kind of input", ["job.yaml:2: input.path must end in .jsonl or .h5 or .hdf5 or .txt, not \"in.csv\""],
         input_name="in.csv"),
    Case("an override of an unknown key", ["command line: parallel.tensr=2: there is no key parallel.tensr; did you mean parallel.tensor?"],
         arguments=("job.yaml", "parallel.tensr=2")),
    Case("an override out of range", ["command line: sampling.temperature=-1: sampling.temperature must be a number from 0"],
         arguments=("job.yaml", "sampling.temperature=-1"), runs=True),
    Case("several faults at once", ["job.yaml:5: there is no key foo", "job.yaml:6: enforce_eager must be true or false, not 3",
                                    "command line: sampling.top_k=-2: sampling.top_k must be"],
         "foo: 1\nenforce_eager: 3\n", arguments=("job.yaml", "sampling.top_k=-2")),

    Case("an override that is a comma", ["command line: sampling.stop=,: not YAML: a value cannot go on with ,; put it in quotes"],
         arguments=("job.yaml", "sampling.stop=,"), runs=True),
    Case("a job that begins with a comma", ["job.yaml:1: not YAML: a value cannot go on with ,model: x; put it in quotes"],
         ",model: x\n", whole=True),
    Case("a job of lists in lists", ["job.yaml:5: more than 16 lists and mappings in one another"], "sampling: {stop: " + 50_000 * "["),
    Case("a job whose aliases multiply", ["more than 100000 values, aliases counted"],
         "a: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 10)), whole=True),
    Case("a job that is too large", ["job.yaml:1: more than 262144 bytes, which no job needs"], " " * 400_000, whole=True),
    Case("measurements nested 200,000 deep", ["--measured: deep.json:1: no JSON object"],
         arguments=("--measured", "deep.json", "job.yaml", "parallel.data=2"),
         prepare=lambda folder: ((folder / "in.jsonl").write_text(GOOD), (folder / "deep.json").write_text(200_000 * "[" + 200_000 * "]"))),

    # What the CUDA device or an exchange cannot do, known without a GPU.
    Case("blocks that the GPU's attention does not take", ["memory.block_size: 16: device: cuda takes multiples of 32"],
         arguments=("job.yaml", "device=cuda", "memory.block_size=16")),
    *(Case(f"a model with {field} {value} on CUDA", [f"config.json: {named}: {shown}: device: cuda takes "], prepare=model_with({field: value, **more}),
           arguments=("job.yaml", "device=cuda", "model.path=model", "model.load_format=dummy"))
      for field, value, named, shown, more in (
          ("head_dim", 96, "head_dim", 96, {}), ("hidden_size", 68, "hidden_size", 68, {}), ("hidden_size", 16640, "hidden_size", 16640, {}),
          ("moe_intermediate_size", 68, "moe_intermediate_size", 68, {}), ("num_experts", 513, "num_experts", 513, {}),
          ("num_experts_per_tok", 20, "num_experts_per_tok", 20, {"num_experts": 32}), ("intermediate_size", 68, "intermediate_size", 68, {"mlp_only_layers": [0]}),
          ("vocab_size", 4194305, "vocab_size", 4194305, {}),
          ("num_attention_heads", 68, "num_attention_heads over num_key_value_heads", 17, {"num_key_value_heads": 4}))),
    Case("tokens of a step beyond a grid", ["scheduler.max_num_batched_tokens: 1048576: device: cuda takes at most 1048560"],
         arguments=("job.yaml", "device=cuda", "scheduler.max_num_batched_tokens=1048576")),
    Case("redundant experts over nccl", ["parallel.redundant_experts: the all-to-all by nccl knows no copies of experts"],
         arguments=("--ranks", "4", "job.yaml", "device=cuda", "parallel.all_to_all=nccl", "parallel.redundant_experts=4")),
    Case("nccl between ranks that do not divide the experts", ["parallel.all_to_all: nccl needs a power of two of ranks"],
         arguments=("--ranks", "3", "job.yaml", "device=cuda", "parallel.all_to_all=nccl")),
    Case("p2p between too many ranks", ["parallel.all_to_all: p2p is for 64 ranks at most, not 65"],
         arguments=("--ranks", "65", "job.yaml", "device=cuda", "parallel.all_to_all=p2p")),
    Case("float32 on CUDA", ["model.dtype: float32 is for device: cpu"], arguments=("job.yaml", "device=cuda", "model.dtype=float32")),
    Case("fewer blocks than a sequence needs", ["memory: there is room for keys and values of 64 tokens"],
         arguments=("job.yaml", "device=cuda", "memory.num_blocks=1")),
    Case("no room for a sequence on the CPU", ["memory: there is room for keys and values of 0 tokens"], "memory: {cpu_kv_gib: 0.000001}\n", runs=True),
    Case("a GPU that is none", ["--gpu H300: H100, H200, or a number of GiB"], arguments=("--gpu", "H300", "job.yaml")),
    Case("a layout that needs more ranks than were started", ["needs 8 ranks, and 2 were started; start it with: mpirun -n 8"],
         "parallel: {tensor: 4, data: 2}\n", runs=True, checks=False),

    # Paths.
    Case("no model folder", ["nowhere/config.json: cannot be read; model.path must be a Hugging Face model folder"], arguments=("job.yaml", "model.path=nowhere")),
    Case("a model folder without a configuration", ["./config.json: cannot be read"], arguments=("job.yaml", "model.path=.")),
    Case("a file of measurements that is none", ['--measured: in.jsonl:1: no "exchange"'],
         arguments=("--measured", "in.jsonl", "job.yaml", "parallel.data=2")),
    Case("measurements, and nothing to compare them with", ["--measured in.jsonl: with one rank an engine nothing is exchanged"],
         arguments=("--measured", "in.jsonl", "job.yaml")),
    Case("no input", ["input.path: none.jsonl cannot be read: No such file"], arguments=("job.yaml", "input.path=none.jsonl")),
    Case("an input that is a folder", ["input.path: in.jsonl is no regular file"], input="",
         prepare=lambda folder: ((folder / "in.jsonl").unlink(), (folder / "in.jsonl").mkdir())),
    Case("the output is the input", ["output.path: ./in.h5 is input.path too"], input_name="in.h5", prepare=cut_h5(1),
         arguments=("job.yaml", "output.path=./in.h5"), runs=True),
    Case("the outputs are one", ["output.jsonl: out.h5 is output.path too"], arguments=("job.yaml", "output.jsonl=out.h5")),
    Case("the report is the output", ["report.path: out.jsonl is output.jsonl too"], arguments=("job.yaml", "report.path=out.jsonl")),
    Case("an output folder under a file", ["output.path: in.jsonl is no directory"], arguments=("job.yaml", "output.path=in.jsonl/b/out.h5")),
    Case("an output folder that is closed", ["output.path: closed cannot be written to"], prepare=unwritable,
         arguments=("job.yaml", "output.path=closed/out.h5")),
    Case("too little free disk", ["has", "GiB free; the 1000000000 answers take at least"],
         "sampling: {ignore_eos: true}\n",
         arguments=("job.yaml", "input.path=null", "model.max_model_len=2048",
                    "input.random={num_prompts: 1000000000, input_len: 8, output_len: 100000}")),

    # What the model and the layout allow.
    Case("ranks that do not come out", ["parallel: "], "parallel: {tensor: 2, data: 3}\n",
         arguments=("--ranks", "4", "job.yaml")),
    Case("a tensor size that is no power of two", ["parallel.tensor: 3 is no power of two"],
         "parallel: {tensor: 3}\n", arguments=("--ranks", "3", "job.yaml")),
    Case("more tensor ranks than heads", ["parallel.tensor: 16 does not divide the model's 8 attention heads"],
         "parallel: {tensor: 16}\n", arguments=("--ranks", "16", "job.yaml")),
    Case("redundant experts on one rank", ["parallel.redundant_experts: an engine of one rank has all experts already"],
         "parallel: {redundant_experts: 4, replicas: 2}\n", arguments=("--ranks", "2", "job.yaml")),
    Case("more redundant experts than ranks can hold", ["parallel.redundant_experts: 97 copies", "which leaves room for 96"],
         "parallel: {redundant_experts: 97}\n", arguments=("--ranks", "4", "job.yaml")),
    Case("redundant experts of the null device", ["parallel.redundant_experts: device: null has no experts"],
         "parallel: {redundant_experts: 4}\n", arguments=("--ranks", "4", "job.yaml", "device=null")),
    Case("a negative number of redundant experts", ["job.yaml:5: parallel.redundant_experts must be an integer from 0 to 65536, not -1"],
         "parallel: {redundant_experts: -1}\n"),
    Case("key/value heads that do not come out", ["parallel.tensor: 4 and the model's 6 key/value heads: one must divide the other"],
         "parallel: {tensor: 4}\n", prepare=model_with({"num_key_value_heads": 6, "num_attention_heads": 24}),
         arguments=("--ranks", "4", "job.yaml", "model={path: model, load_format: dummy}")),
    Case("sequences beyond the model's positions", ["model.max_model_len: 4096 is more than the model's 2048 positions"],
         arguments=("job.yaml", "model.max_model_len=4096")),
    Case("a stop token outside of the vocabulary", ["sampling.stop_token_ids: stop token id 4096 is outside of the model's vocabulary of 4096"],
         "sampling: {stop_token_ids: [4096]}\n", runs=True),
    Case("a row's stop token outside of the vocabulary", ["in.jsonl:1: stop token id 4096 is outside"],
         input='{"prompt": "a", "stop_token_ids": [4096]}\n'),

    Case("no answers, several for scores alone, and scores from beyond the prompt",
         ["in.jsonl:1: n must be an integer from 1 to 16384, not 0", "in.jsonl:2: n (3) asks for several answers, and max_tokens (0) for none",
          "in.jsonl:3: prompt_logprobs_start is 2, and the prompt has 2 tokens: none is left to score",
          "in.jsonl:4: prompt_logprobs_start needs prompt_logprobs: true", "in.jsonl:5: prompt_logprobs_start must be an integer of at least 0, not -1"],
         input='{"prompt": "a", "n": 0}\n{"prompt": "a", "n": 3, "max_tokens": 0}\n'
               '{"prompt_token_ids": [1, 2], "prompt_logprobs": true, "prompt_logprobs_start": 2}\n'
               '{"prompt": "a", "prompt_logprobs_start": 1}\n{"prompt": "a", "prompt_logprobs": true, "prompt_logprobs_start": -1}\n'),
    Case("an answer that leaves no room for what truncation keeps",
         ["in.jsonl:2: max_tokens is 64, and model.max_model_len 64: input.truncate_prompt: left keeps room for the whole answer, and there is none for a prompt",
          "in.jsonl:3: prompt_logprobs_start is 9, and the prompt has 2 tokens: none is left to score"],
         arguments=("job.yaml", "input.truncate_prompt=left", "model.max_model_len=64"),
         input='{"prompt": "a", "max_tokens": 63}\n{"prompt": "a", "max_tokens": 64}\n{"prompt_token_ids": [1, 2], "prompt_logprobs": true, "prompt_logprobs_start": 9}\n',
         runs=True),
    Case("an answer of a random input that leaves no room for what truncation keeps",
         ["input.random.output_len: max_tokens is 66, and model.max_model_len 64: input.truncate_prompt: left keeps room"],
         arguments=("job.yaml", "input={path: null, random: {num_prompts: 3, input_len: 4, output_len: 60, range_ratio: 0.1}, truncate_prompt: left}", "model.max_model_len=64")),
    Case("truncation on the right", ['input.truncate_prompt must be one of none, left, not "right"'], arguments=("job.yaml", "input.truncate_prompt=right")),
    Case("more of the most likely at a prompt's positions than there may be",
         ["in.jsonl:1: prompt_logprobs must be true, false or an integer from 0 to 20, not 21", "in.jsonl:2: prompt_logprobs must be true, false or an integer from 0 to 20, not \"5\"",
          "in.jsonl:3: prompt_logprobs must be true, false or an integer from 0 to 20, not -1", "in.jsonl:4: prompt_is_greedy needs prompt_logprobs: true"],
         input='{"prompt": "a", "prompt_logprobs": 21}\n{"prompt": "a", "prompt_logprobs": "5"}\n{"prompt": "a", "prompt_logprobs": -1}\n'
               '{"prompt": "a", "prompt_logprobs": false, "prompt_is_greedy": true}\n'),
    Case("best_of", ["in.jsonl:1: body.best_of is not supported other than as 1 beside one answer: 4 would change the answer"],
         input='{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "tiny-moe", "prompt": "a", "n": 2, "best_of": 4}}\n'),

    # The model's configuration.
    Case("another architecture", ["model/config.json: architectures [\"LlamaForCausalLM\"] are not supported; Qwen3MoeForCausalLM, MixtralForCausalLM, ", "CONTRIBUTING.md says how to add a family"],
         prepare=model_with({"architectures": ["LlamaForCausalLM"]}), arguments=DUMMY),
    Case("a sliding window", ["model/config.json: use_sliding_window is true, and sliding-window attention is not supported"],
         prepare=model_with({"use_sliding_window": True, "sliding_window": 4096}), arguments=DUMMY, runs=True),
    Case("a layer with a sliding window", ["model/config.json: layer_types has \"sliding_attention\", and full_attention alone is supported"],
         prepare=model_with({"layer_types": ["full_attention", "sliding_attention"]}), arguments=DUMMY),
    Case("layer types that are no list", ["model/config.json: layer_types is \"full_attention\", and must be a list"],
         prepare=model_with({"layer_types": "full_attention"}), arguments=DUMMY),
    Case("a field that is not understood", ["model/config.json: field attention_sinks (4) is not understood, and might change the answers"],
         prepare=model_with({"attention_sinks": 4}), arguments=DUMMY),
    Case("scaled positions of an unknown kind", ["model/config.json: rope_scaling: rope_type longrope is not one of default, linear, yarn"],
         prepare=model_with({"rope_parameters": None, "rope_scaling": {"rope_type": "longrope", "factor": 2.0}}), arguments=DUMMY),
    Case("YaRN without its factor", ["model/config.json: rope_parameters: factor is missing"],
         prepare=model_with({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}), arguments=DUMMY),
    Case("scaled positions in two spellings", ["model/config.json: rope_parameters and rope_scaling are both given; one of them must go"],
         prepare=model_with({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}}), arguments=DUMMY),
    Case("a field of YaRN that is not understood", ["model/config.json: rope_scaling: field short_factor ([1]) is not understood"],
         prepare=model_with({"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 2.0, "short_factor": [1]}}), arguments=DUMMY),
    Case("a quantised checkpoint that does not say how", ["model/config.json: quantization_config: quant_method none is not supported; what is read: "],
         prepare=model_with({"quantization_config": {"bits": 4}}), arguments=DUMMY),
    *(Case(f"a checkpoint quantised by {method}", [f"model/config.json: quantization_config: quant_method {method} is not supported; what is read: quant_method fp8 with weight_block_size [128, 128], and compressed-tensors"],
           prepare=model_with({"quantization_config": {"quant_method": method, "bits": 4}}), arguments=DUMMY) for method in ("gptq", "awq", "modelopt", "mxfp4")),
    Case("FP8 with scales of activations", ["model/config.json: quantization_config: activation_scheme is \"static\"; what is read: ", "activations dynamic"],
         prepare=model_with({"quantization_config": BLOCKS | {"activation_scheme": "static"}}), arguments=DUMMY),
    Case("FP8 with one scale a tensor", ["model/config.json: quantization_config: weight_block_size is missing; what is read: "],
         prepare=model_with({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}), arguments=DUMMY),
    Case("FP8 in blocks of another size", ["model/config.json: quantization_config: weight_block_size is [64,64]; what is read: "],
         prepare=model_with({"quantization_config": BLOCKS | {"weight_block_size": [64, 64]}}), arguments=DUMMY),
    Case("FP8 with powers of two as scales", ["model/config.json: quantization_config: scale_fmt is \"ue8m0\"; what is read: "],
         prepare=model_with({"quantization_config": BLOCKS | {"scale_fmt": "ue8m0"}}), arguments=DUMMY),
    Case("a field of FP8 that is not understood", ["model/config.json: quantization_config: field zero_points (true) is not understood, and might change the answers"],
         prepare=model_with({"quantization_config": BLOCKS | {"zero_points": True}}), arguments=DUMMY),
    Case("compressed-tensors in 4 bits", ["model/config.json: quantization_config: format is \"pack-quantized\"; what is read: "],
         prepare=model_with({"quantization_config": CHANNELS | {"format": "pack-quantized"}}), arguments=DUMMY),
    Case("compressed-tensors with integers", ["model/config.json: quantization_config: config_groups: weights: type is \"int\"; what is read: "],
         prepare=model_with({"quantization_config": json.loads(json.dumps(CHANNELS).replace('"float", "strategy": "channel"', '"int", "strategy": "channel"'))}), arguments=DUMMY),
    Case("a pattern of modules that is none", ["model/config.json: quantization_config: ignore: re:mlp(: ", " at character 4"],
         prepare=model_with({"quantization_config": CHANNELS | {"ignore": ["re:mlp("]}}), arguments=DUMMY),
    Case("a pattern of modules that never ends", ["model/config.json: quantization_config: ignore: re:", "match limit exceeded"],
         prepare=model_with({"quantization_config": CHANNELS | {"ignore": ["re:(?:.|.)*[A-Z]"]}}), arguments=DUMMY),
    Case("too many patterns of modules", ["model/config.json: quantization_config: 65 patterns of modules, and at most 64 are read"],
         prepare=model_with({"quantization_config": CHANNELS | {"ignore": ["re:x"] * 65}}), arguments=DUMMY),
    Case("a part of a matrix in FP8", ["model/config.json: quantization_config: model.layers.3.self_attn.k_proj is converted and model.layers.3.self_attn.q_proj is not: they are computed as one matrix"],
         prepare=model_with({"quantization_config": BLOCKS | {"modules_to_not_convert": BLOCKS["modules_to_not_convert"][:-2]}}), arguments=DUMMY),
    Case("keys and values in a format that is not known", ["memory.kv_cache_dtype"], "memory: {kv_cache_dtype: int4}\n"),
    Case("a shard that would cut a block of FP8", ["parallel.tensor: 8 would cut a block of 128 of the FP8 weights of o_proj, which has 512 columns: set it to 4 or less"],
         prepare=model_with({"quantization_config": BLOCKS}), arguments=(*DUMMY, "parallel.tensor=8")),
    Case("a wrong type and a missing field", ["model/config.json: rms_norm_eps has the wrong type: \"1e-6\"", "model/config.json: hidden_size is missing"],
         prepare=model_with({"rms_norm_eps": "1e-6", "hidden_size": None}), arguments=DUMMY),

    Case("an end of sequence outside of the vocabulary", ["model/config.json: eos_token_id 4096 (of model/config.json or generation_config.json) is outside of the vocabulary of 4096"],
         prepare=model_with({"eos_token_id": 4096}), arguments=DUMMY),
    Case("stop strings for a model without a tokenizer", ["in.jsonl:1: stop strings need model/tokenizer.json, which is not there; give stop_token_ids"],
         "sampling: {stop: [x]}\n", input='{"prompt_token_ids": [1]}\n',
         prepare=lambda folder: (model_with({})(folder), (folder / "model/tokenizer.json").unlink()), arguments=DUMMY),
    Case("stop strings for a random input without a tokenizer", ["sampling.stop: stop strings need model/tokenizer.json, which is not there"],
         "sampling: {stop: [x]}\n", prepare=lambda folder: (model_with({})(folder), (folder / "model/tokenizer.json").unlink()),
         arguments=(*DUMMY, "input.path=null", "input.random={num_prompts: 1, input_len: 1, output_len: 1}")),
    Case("text for a model without a tokenizer", ["in.jsonl:1: text needs model/tokenizer.json, which is not there; give prompt_token_ids"],
         prepare=lambda folder: (model_with({})(folder), (folder / "model/tokenizer.json").unlink()), arguments=DUMMY),

    # Checkpoints.
    Case("a shard that lacks its last byte", [f"model/{LAST_SHARD}: tensor ", "the file is truncated"],
         prepare=checkpoint_with(cut_to(-1)), arguments=COPIED, runs=True),
    Case("a shard cut in its header", [f"model/{FIRST_SHARD}: its header should take ", "bytes and the file has 100: it is truncated, or no safetensors file"],
         prepare=checkpoint_with(cut_to(100), FIRST_SHARD), arguments=COPIED),
    Case("a shard without anything", [f"model/{FIRST_SHARD}: is empty"], prepare=checkpoint_with(cut_to(0), FIRST_SHARD), arguments=COPIED),
    Case("a shard that is absent", [f"model/{LAST_SHARD}: cannot be read (No such file or directory)"],
         prepare=checkpoint_with(pathlib.Path.unlink), arguments=COPIED),
    Case("a tensor that the index promises", [f"model/{LAST_SHARD}: tensor absent is missing, which the index puts there"],
         prepare=checkpoint_with(promise("absent")), arguments=COPIED),
    Case("a tensor that is absent", [f"tensor {NORM} is missing from the checkpoint"], prepare=checkpoint_with(drop(NORM)), arguments=COPIED),
    Case("a tensor of another shape", [f"model/{LAST_SHARD}: tensor {NORM} has shape [2, 128] and config.json asks for [256]"],
         prepare=checkpoint_with(header_with(NORM, shape=[2, 128])), arguments=COPIED),
    Case("FP8 without its scales", [f"model/{LAST_SHARD}: tensor {FP8}.weight is in FP8 and its scales, tensor {FP8}.weight_scale_inv, are missing from the checkpoint",
                                    f"model/{LAST_SHARD}: tensor {FP8}.input_scale is not one that config.json asks for: activations with scales of their own are not supported"],
         prepare=in_fp8(renamed="input_scale"), arguments=COPIED, runs=True),
    Case("FP8 with scales of another shape", [f"model/{LAST_SHARD}: tensor {FP8}.weight_scale_inv has shape [4, 2] of float32, and the scales of {FP8}.weight must be [2, 4] of bfloat16 or float32"],
         prepare=in_fp8(scales=(4, 2)), arguments=COPIED),
    *(Case(f"FP8 with a scale {first}", [f"model/{LAST_SHARD}: tensor {FP8}.weight_scale_inv has the scale {first:g} (value 1 of it): scales are finite and more than 0"],
           prepare=in_fp8(first=first), arguments=COPIED) for first in (0.0, -1.0, float("inf"), float("nan"))),
    Case("FP8 that config.json does not know of", [f"model/{LAST_SHARD}: tensor {FP8}.weight is in FP8, and by config.json (quantization_config) it is not",
                                                   f"tensor {FP8}.weight_scale_inv is not one that config.json asks for"],
         prepare=in_fp8(config=None), arguments=COPIED),
    Case("16 bits where config.json asks for FP8", [f"model/{LAST_SHARD}: tensor model.layers.3.mlp.experts.0.up_proj.weight is in bfloat16, and by quantization_config of config.json it is in FP8"],
         prepare=in_fp8(config=BLOCKS | {"modules_to_not_convert": [name for name in BLOCKS["modules_to_not_convert"] if name != "model.layers.3.mlp"]}), arguments=COPIED),
    Case("a tensor whose shape its bytes do not fill", [f"model/{LAST_SHARD}: tensor {NORM} has 512 bytes where its shape [300] and dtype bfloat16 need 600"],
         prepare=checkpoint_with(header_with(NORM, shape=[300])), arguments=COPIED),
    Case("a tensor of a type that is not supported", [f"model/{LAST_SHARD}: tensor {NORM} has dtype I64; BF16, F16, F32 and F8_E4M3 are supported"],
         prepare=checkpoint_with(header_with(NORM, dtype="I64")), arguments=COPIED),
    Case("a tensor that reaches beyond the file", [f"model/{LAST_SHARD}: tensor {NORM} lies at bytes ", "the file is truncated"],
         prepare=checkpoint_with(header_with(NORM, data_offsets=[1 << 40, (1 << 40) + 512])), arguments=COPIED),
    Case("a tensor that is in two shards", [f"model/{LAST_SHARD}: tensor {NORM} is in model/extra.safetensors too"],
         prepare=extra_shard, arguments=COPIED),
    Case("tensors that overlap", [f"model/{LAST_SHARD}: tensors ", " overlap"], prepare=checkpoint_with(overlapping), arguments=COPIED),
    Case("bytes of no tensor", [f"model/{LAST_SHARD}: bytes 6", "of its data belong to no tensor"],
         prepare=checkpoint_with(lambda path: path.write_bytes(path.read_bytes() + bytes(10))), arguments=COPIED),
    Case("offsets that are no numbers of bytes", [f"model/{LAST_SHARD}: tensor {NORM} has a malformed header entry (data_offsets must be"],
         prepare=checkpoint_with(header_with(NORM, data_offsets=[-1, 512])), arguments=COPIED),
    Case("offsets that are no integers", [f"model/{LAST_SHARD}: tensor {NORM} has a malformed header entry (data_offsets must be"],
         prepare=checkpoint_with(header_with(NORM, data_offsets=[0.5, 512])), arguments=COPIED),
    Case("a shape whose product wraps", [f"model/{LAST_SHARD}: tensor {NORM} has the impossible shape [4294967296,4294967296,256]"],
         prepare=checkpoint_with(header_with(NORM, shape=[1 << 32, 1 << 32, 256])), arguments=COPIED),
    Case("a header nested without end", [f"model/{LAST_SHARD}: its header: is nested more than 4 deep"],
         prepare=checkpoint_with(lambda path: path.write_bytes(struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000)), arguments=COPIED),
    Case("a header beyond the limit", [f"model/{LAST_SHARD}: its header: has 33554433 bytes, and at most 33554432 are read"],
         prepare=checkpoint_with(lambda path: path.write_bytes(struct.pack("<Q", (32 << 20) + 1) + b" " * ((32 << 20) + 1))), arguments=COPIED),
    Case("a shard that is a pipe", [f"model/{LAST_SHARD}: is no regular file"],
         prepare=checkpoint_with(lambda path: (path.unlink(), os.mkfifo(path))), arguments=COPIED),
    Case("an adapter beside the weights", ["model: has adapter_config.json, and adapters are not applied: merge it into the weights"],
         prepare=edited_model(lambda model: (model / "adapter_config.json").write_text("{}")), arguments=COPIED, runs=True),
    Case("an adapter's weights beside the weights", ["model: has adapter_model.safetensors, and adapters are not applied"],
         prepare=edited_model(lambda model: (model / "adapter_model.safetensors").write_bytes(b"x")), arguments=COPIED),
    Case("a pickled checkpoint alone", ["model: has neither model.safetensors nor model.safetensors.index.json; it has pytorch_model.bin: save the"],
         prepare=lambda folder: (model_with({})(folder), (folder / "model/pytorch_model.bin").write_bytes(b"PK")), arguments=COPIED),
    Case("an index of nothing", [f"{INDEX}: its weight_map names no tensor"],
         prepare=replaced(INDEX, lambda _: b'{"weight_map": {}}'), arguments=COPIED),
    Case("a configuration nested without end", ["model/config.json: is nested more than 64 deep"],
         prepare=replaced("config.json", lambda _: b'{"a":' + b"[" * 200_000), arguments=COPIED),
    Case("a configuration that is a pipe", ["model/config.json: is no regular file"],
         prepare=edited_model(lambda model: ((model / "config.json").unlink(), os.mkfifo(model / "config.json"))), arguments=COPIED),
    Case("2^40 layers", ["model/config.json: num_hidden_layers is 1099511627776, and must be at most 1024"],
         prepare=model_with({"num_hidden_layers": 1 << 40}), arguments=DUMMY, runs=True),
    Case("2^33 experts", ["model/config.json: num_experts is 8589934592, and must be at most 4096"],
         prepare=model_with({"num_experts": 1 << 33}), arguments=DUMMY),
    Case("no key/value heads", ["model/config.json: num_key_value_heads is 0, and must be at least 1"],
         prepare=model_with({"num_key_value_heads": 0}), arguments=DUMMY),
    Case("an end of sequence that would wrap", ["model/config.json: eos_token_id 4294967297 is no token id"],
         prepare=model_with({"eos_token_id": (1 << 32) + 1}), arguments=DUMMY),
    Case("a model folder without weights", ["model: has neither model.safetensors nor model.safetensors.index.json"],
         prepare=model_with({}), arguments=COPIED),

    # A whole checkpoint that another configuration, or another file, is put in.
    Case("a configuration that is no JSON", ["model/config.json: is no JSON object"], prepare=replaced("config.json", lambda _: b'{"a":'),
         arguments=COPIED),
    Case("more experts a token than experts", ["model/config.json: num_experts_per_tok 33 is more than num_experts 32"],
         prepare=configured(num_experts_per_tok=33), arguments=COPIED),
    Case("more experts than the checkpoint has", ["mlp.gate.weight has shape [32, 256] and config.json asks for [64, 256]", "… and "],
         prepare=configured(num_experts=64), arguments=COPIED, runs=True),
    Case("fewer experts than the checkpoint has", ["mlp.gate.weight has shape [32, 256] and config.json asks for [16, 256]",
                                                   "is not one that config.json asks for"],
         prepare=configured(num_experts=16, num_hidden_layers=1), arguments=COPIED),
    Case("more layers than the checkpoint has", ["tensor model.layers.4.input_layernorm.weight is missing from the checkpoint"],
         prepare=configured(num_hidden_layers=5), arguments=COPIED),
    Case("another vocabulary than the checkpoint's", ["model.embed_tokens.weight has shape [4096, 256] and config.json asks for [5000, 256]"],
         prepare=configured(vocab_size=5000), arguments=COPIED),
    Case("weights cut short", [f"{SHARD}: tensor model.layers.0.mlp.experts.10.up_proj.weight lies at bytes 65536 to 98304 of 79728", "more like this"],
         prepare=replaced(SHARD, lambda data: data[:100_000]), arguments=COPIED, runs=True),
    Case("weights of another format", [f"{SHARD}: its header should take", "no safetensors file"],
         prepare=replaced(SHARD, lambda _: b"PK\3\4 pickled tensors"), arguments=COPIED),
    Case("an index that is none", ["model.safetensors.index.json: has no weight_map"],
         prepare=replaced("model.safetensors.index.json", lambda _: b"{}"), arguments=COPIED),
    Case("a tokenizer that is no JSON", ["model/tokenizer.json is not valid JSON"], prepare=replaced("tokenizer.json", lambda _: b"{"),
         arguments=COPIED, runs=True),

    # JSONL.
    Case("an empty input", ["in.jsonl: it holds no prompts"], input="", runs=True),
    Case("blank lines alone", ["in.jsonl: it holds no prompts"], input="\n\r\n"),
    Case("malformed JSON", ["in.jsonl:3: not JSON at column 15: syntax error"], input=GOOD + "\n" + '{"prompt": "x"\n', runs=True),
    Case("a line that is no object", ["in.jsonl:1: a line must be a JSON object, not 5"], input="5\n"),
    Case("invalid UTF-8", ["in.jsonl:2: byte 14 of the line is no valid UTF-8"],
         input=GOOD.encode() + b'{"prompt": "ab\xff"}\n'),
    Case("a lone surrogate", ["in.jsonl:1: not JSON at", "surrogate"], input='{"prompt": "\\ud800"}\n'),
    Case("a key twice in a row", ["in.jsonl:1: the line has \"prompt\" twice"], input='{"prompt": "a", "prompt": "b"}\n'),
    Case("a nest of lists", ["in.jsonl:1: the line is nested deeper than 100 levels"], input="[" * 100000 + "\n"),
    Case("an id twice", ["in.jsonl:4: the id \"a\" is in.jsonl:1's already"], input=GOOD + "\n\n" + GOOD),
    Case("an unknown field", ["in.jsonl:1: there is no field \"max_token\"; did you mean \"max_tokens\"?"],
         input='{"prompt": "a", "max_token": 4}\n'),
    Case("no prompt", ["in.jsonl:1: a row has exactly one of prompt, prompt_token_ids and messages"], input='{"id": "a"}\n'),
    Case("two prompts", ["in.jsonl:1: a row has exactly one of"], input='{"prompt": "a", "prompt_token_ids": [1]}\n'),
    Case("an empty prompt", ["in.jsonl:1: the prompt is empty"], input='{"prompt": ""}\n'),
    Case("a prompt that is no text", ["in.jsonl:1: prompt must be a text, not [\"a\"]"], input='{"prompt": ["a"]}\n'),
    Case("a token outside of the vocabulary", ["in.jsonl:1: prompt token 1 is 4096, outside of the model's vocabulary of 4096"],
         input='{"prompt_token_ids": [1, 4096]}\n'),
    Case("token ids that are none", ["in.jsonl:1: prompt_token_ids must be a list of token ids, not [1,\"b\"]"],
         input='{"prompt_token_ids": [1, "b"]}\n'),
    Case("sampling out of range in a row", ["in.jsonl:2: temperature must be a number from 0 to 100, not -1"],
         input=GOOD + '{"prompt": "a", "temperature": -1}\n'),
    Case("messages for a model without a chat template", ["in.jsonl:1: ", "chat template"],
         input='{"messages": [{"role": "user", "content": "Hi"}]}\n'),
    Case("messages without a role", ["in.jsonl:1: messages must be a list of objects with a role"],
         input='{"messages": [{"content": "Hi"}]}\n'),
    Case("faults of several rows at once", ["in.jsonl:1: prompt must be", "in.jsonl:2: the prompt is empty", "in.jsonl:4: there is no field"],
         input='{"prompt": 1}\n{"prompt": ""}\n{"prompt": "good"}\n{"prompt": "a", "x": 1}\n'),
    Case("more faults than are printed", ["in.jsonl:1: a row has", "… and 999 more like this: in.jsonl:2, in.jsonl:3, …"], input="{}\n" * 1000),

    Case("an id with an exponent", ["in.jsonl:1: id must be a text that is not empty or an integer from"], input='{"prompt": "a", "id": 1e3}\n'),
    Case("an integer id twice", ["in.jsonl:2: the id 18446744073709551615 is in.jsonl:1's already"],
         input='{"prompt": "a", "id": 18446744073709551615}\n' * 2),
    Case("a line of 20,000 keys", ["in.jsonl:1: the line has an object of more than 1024 keys"],
         input=json.dumps({f"k{i}": i for i in range(20000)}) + "\n"),
    Case("faults of a kind", ["in.jsonl:3: top_k must be", "… and 2 more like this"],
         input="".join(json.dumps({"prompt": "a", "top_k": -i}) + "\n" for i in range(1, 6))),

    # OpenAI batch lines.
    Case("a wrong model", ["in.jsonl:1: body.model is \"gpt-4\", but this job runs \"tiny-moe\""], input=openai({"model": "gpt-4"})),
    Case("no model", ["in.jsonl:1: body.model must be the model's name, not null"], input=openai({"model": None})),
    Case("a wrong method", ["in.jsonl:1: method must be \"POST\", not \"GET\""], input=openai({}, method="GET")),
    Case("a wrong url", ["in.jsonl:1: url must be \"/v1/chat/completions\" or \"/v1/completions\", not \"/v1/embeddings\""],
         input=openai({}, url="/v1/embeddings")),
    Case("no body", ["in.jsonl:1: body is missing"], input=openai({}, body=None)),
    Case("an unknown body field", ["in.jsonl:1: there is no field \"body.max_token\"; did you mean \"max_tokens\"?"],
         input=openai({"max_token": 4})),
    Case("a body field that is not supported", ["in.jsonl:1: body.response_format is not supported other than as {\"type\": \"text\"}"],
         input=chat(response_format={"type": "json_object"})),
    Case("a body field that nobody knows", ["in.jsonl:1: there is no field \"body.quite_new\", and it might change the answer"],
         input=openai({"quite_new": 1})),
    Case("a picture in a chat", ["in.jsonl:1: messages[0].content[0] has the type \"image_url\""],
         input=chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])),
    Case("two length limits", ["in.jsonl:1: body has max_tokens and max_completion_tokens; one of them must go"],
         input=chat(max_tokens=1, max_completion_tokens=2)),
    Case("log-probabilities of a chat without asking", ["in.jsonl:1: body.top_logprobs needs body.logprobs: true"],
         input=chat(top_logprobs=2)),
    Case("a custom_id twice", ["in.jsonl:2: the id \"r\" is in.jsonl:1's already"], input=openai({}) + openai({})),
    Case("another kind of row among batch lines", ["in.jsonl:2: there is no field \"prompt\"", "custom_id is missing"],
         input=openai({}) + '{"prompt": "x"}\n'),

    # Text and HDF5.
    Case("a text line that is not UTF-8", ["in.txt:2: byte 1 of the prompt is no valid UTF-8"], input=b"good\nb\xc3\n", input_name="in.txt"),
    Case("an HDF5 input that is none", ["in.h5 cannot be opened: HDF5 says: "], input="no HDF5", input_name="in.h5"),
    Case("an HDF5 input cut to nothing", ["in.h5 cannot be opened: HDF5 says: "], input="", input_name="in.h5"),
    Case("an HDF5 input cut to 90%", ["in.h5 cannot be opened: HDF5 says: ", "truncated"], input_name="in.h5", prepare=cut_h5(0.9), runs=True),
    Case("an HDF5 input cut to 30%", ["in.h5 cannot be opened: HDF5 says: "], input_name="in.h5", prepare=cut_h5(0.3)),
    Case("an HDF5 input with rubbish in its middle", ["in.h5", "HDF5 "], input_name="in.h5", prepare=rubbish_in_h5, runs=True),
    Case("an HDF5 file of something else", ["in.h5: it has neither /prompts/tokens nor /prompts/text"], input_name="in.h5",
         prepare=h5_with(("/prompts/text", "/abstracts"))),
    Case("HDF5 tokens that are texts", ["in.h5: /prompts/tokens must be a list of integers"], input_name="in.h5",
         prepare=h5_with(("/prompts/text", "/prompts/tokens"), ("/prompts/id", "/prompts/offsets"))),
    Case("HDF5 tokens without offsets", ["in.h5: it has /prompts/tokens without /prompts/offsets"], input_name="in.h5",
         prepare=h5_with(("/prompts/text", "/prompts/tokens"))),
    Case("HDF5 text and tokens", ["in.h5: it has /prompts/text and /prompts/tokens; one of them must go"], input_name="in.h5",
         prepare=h5_with(("/prompts/text", "/prompts/text"), ("/prompts/text", "/prompts/tokens"))),
]

LONG = list(range(1, 42))  # a prompt of 41 tokens, where max_model_len is 40

# With `input.on_error: row`, what each row of an input is answered with: a part of its error, or None for an answer.
ROWS = [
    (GOOD, None),
    ("nonsense\n", "in.jsonl:2: not JSON at column 2"),
    ('{"id": "b", "prompt": "Call me", "max_tokens": -1}\n', "in.jsonl:3: max_tokens must be an integer of at least 0, not -1"),
    (GOOD, 'in.jsonl:4: the id "a" is an earlier row\'s already'),
    ("\n", "blank"),
    (json.dumps({"prompt_token_ids": [4096]}) + "\n", "in.jsonl:6: prompt token 0 is 4096"),
    (json.dumps({"prompt_token_ids": LONG}) + "\n", "the prompt has 41 tokens, and model.max_model_len is 40"),
    (json.dumps({"prompt_token_ids": LONG[:40], "prompt_logprobs": True}) + "\n", None),
    ('{"id": "z", "prompt_token_ids": [1, 2, 3]}', None),
]
