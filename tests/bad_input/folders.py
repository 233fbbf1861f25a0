"""What the cases of cases.py put into their folders: models, inputs, a job's parts, each with its damage."""
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


def model_with(changes):
    """Makes ./model: the tiny model's configuration with changes, without weights."""
    def prepare(folder):
        (folder / "model").mkdir()
        config = json.loads((MODEL / "config.json").read_text())
        config.update(changes)
        (folder / "model/config.json").write_text(json.dumps(config))
        shutil.copy(MODEL / "tokenizer.json", folder / "model")
    return prepare


DELTA_NETS = REPOSITORY / "tests/golden/shapes/qwen3-next"  # a model whose layers keep states


def delta_nets_with(**changes):
    """Makes ./model: that one, with another configuration."""
    def prepare(folder):
        shutil.copytree(DELTA_NETS, folder / "model")
        (folder / "model/config.json").write_text(json.dumps({**json.loads((DELTA_NETS / "config.json").read_text()), **changes}))
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


def extra_numbers(numbers):
    """./model with a shard more: tensors of one float32 each, or as many as are given."""
    def prepare(folder):
        checkpoint_with(lambda path: None)(folder)
        header, data = {}, b""
        for name, values in numbers.items():
            raw = struct.pack(f"<{len(values)}f", *values)
            header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        (folder / "model/extra.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        index = json.loads((MODEL / INDEX).read_text())
        index["weight_map"] |= {name: "extra.safetensors" for name in numbers}
        (folder / "model" / INDEX).unlink()
        (folder / "model" / INDEX).write_text(json.dumps(index))
    return prepare


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
