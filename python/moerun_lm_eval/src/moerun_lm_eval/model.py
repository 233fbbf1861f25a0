"""lm-evaluation-harness' model `moerun`: all requests of a type become one job."""
import json
import logging
import pathlib

import jinja2
import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text

from moerun_lm_eval.errors import MoerunError
from moerun_lm_eval.run import Row, run_rows
from moerun_lm_eval.settings import Settings

logger = logging.getLogger("lm_eval.moerun")
# lm-eval's and transformers' names of what moerun calls otherwise.
SAMPLING = {"top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty", "presence_penalty": "presence_penalty",
            "frequency_penalty": "frequency_penalty", "seed": "seed", "min_tokens": "min_tokens", "min_new_tokens": "min_tokens", "min_gen_toks": "min_tokens",
            "ignore_eos": "ignore_eos", "stop_token_ids": "stop_token_ids"}
# What asks for how things are anyway.
WITHOUT_EFFECT = {"do_sample", "skip_special_tokens", "spaces_between_special_tokens", "use_cache", "num_beams", "num_return_sequences"}
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")  # in the order in which lm-eval's hf looks for them


def positions_of(folder):
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise MoerunError(f"{folder}/config.json: {error}") from error
    config = config.get("text_config") or config
    found = [config[name] for name in LENGTHS if config.get(name) is not None]
    if not found:
        raise MoerunError(f"{folder}/config.json: it does not say how many positions the model has; give --max-length")
    return int(found[0])


class Moerun(TemplateLM):
    """`pretrained`: the model's folder. The other arguments are those of `python -m moerun_lm_eval --help`; those of lm-eval's `hf` mean what
    they mean there. `batch_size`, `max_batch_size` and `device` come from lm-eval's own command line: moerun fills its batches itself, and
    takes GPUs where there are some; `cpu` is passed on."""

    def __init__(self, pretrained, runs="moerun-runs", moerun=None, launcher=None, slurm=None, job=None, set=None, fresh=False, dtype=None, tokenizer=None,
                 max_length=None, max_gen_toks=256, add_bos_token=None, prefix_token_id=None, enable_thinking=None, think_end_token=None,
                 chat_template_args=None, batch_size=None, max_batch_size=None, device=None):
        super().__init__()
        keys = set.split() if isinstance(set, str) else list(set or [])
        keys += [f"model.dtype={dtype}"] if dtype else []
        keys += ["device=cpu"] if device == "cpu" else []
        self.settings = Settings.read(pretrained, runs, moerun, launcher, slurm, job, keys, fresh)
        self.max_length = int(max_length or positions_of(self.settings.folder))
        self.max_gen_toks = int(max_gen_toks)
        self.add_bos_token, self.custom_prefix_token_id = add_bos_token, prefix_token_id
        self.chat_template_args = {**(chat_template_args or {}), **({} if enable_thinking is None else {"enable_thinking": enable_thinking})}
        self.enable_thinking = enable_thinking
        self.think_end_token = int(think_end_token) if str(think_end_token).isdigit() else think_end_token
        if enable_thinking and think_end_token is None:
            raise MoerunError("enable_thinking needs think_end_token, the token or its id behind which the answer begins")
        self.tokenizer = read_tokenizer(tokenizer or self.settings.folder, add_bos_token)
        self._encoded, self._prefix_text = {}, None

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self):
        for token in (self.custom_prefix_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise MoerunError("the tokenizer has neither a BOS nor an EOS token to put before a text without context; give prefix_token_id")

    def _prefix(self):
        if self._prefix_text is None:
            self._prefix_text = self.tokenizer.decode(self.prefix_token_id)
        return self._prefix_text

    @property
    def tokenizer_name(self):
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        def render(messages):
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt,
                                                      continue_final_message=not add_generation_prompt, **self.chat_template_args)

        try:
            return render(chat_history)
        except jinja2.exceptions.TemplateError:  # as lm-eval's hf: templates that know no system role
            return render([message for message in chat_history if message["role"] != "system"])

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        """As lm-eval's hf: with what the tokenizer puts around a text, and without where the text begins with BOS already. The last
        texts are kept: the choices of a question share their context."""
        special = add_special_tokens
        if special is None:
            special = False if has_bos_prefix(string, self._prefix()) else self.add_bos_token
        key = (string, special)
        if key not in self._encoded:
            if len(self._encoded) >= 64:
                self._encoded.clear()
            self._encoded[key] = self.tokenizer.encode(string, **({} if special is None else {"add_special_tokens": special}))
        return self._encoded[key]

    def loglikelihood(self, requests, disable_tqdm=False):
        if self.enable_thinking:
            raise MoerunError("enable_thinking goes with tasks that generate, and these score given answers")
        for request in requests:
            if request.args[1] == "":
                raise MoerunError(f"task {request.task_name}, document {request.doc_id}: the continuation to score is empty")
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, kind="loglikelihood", **kwargs):
        """A request is ((context, continuation) or None, their ids, and theirs). Of what is too long the end is kept: `max_length` ids are looked
        at, and the last one is predicted alone. All sums are of float64."""
        rows, cut = [], 0
        for number, (texts, context, continuation) in enumerate(requests):
            if not context or not continuation:
                raise MoerunError(f"request {number} ({_shown(texts)}): its {'continuation' if context else 'context'} has no tokens")
            if len(continuation) > self.max_length:
                raise MoerunError(f"request {number} ({_shown(texts)}): the continuation has {len(continuation)} tokens, and the model looks at {self.max_length}")
            ids = [*context, *continuation][-(self.max_length + 1) :]
            cut += len(ids) < len(context) + len(continuation)
            rows.append(Row(ids, {"max_tokens": 0, "prompt_logprobs": True, "prompt_is_greedy": True, "prompt_logprobs_start": len(ids) - len(continuation)}))
        if not rows:
            return []
        self._say_cut(cut, len(rows))
        answers = run_rows(self.settings, kind, rows, ("prompt_logprobs", "prompt_offsets", "prompt_is_greedy"))
        out = []
        for (texts, _, _), scores, greedy in zip(requests, answers.rows("prompt_logprobs", "prompt_offsets"), answers.rows("prompt_is_greedy", "prompt_offsets"), strict=True):
            out.append((float(scores.astype(np.float64).sum()), bool((greedy == 1).all())))
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, out[-1])
        return out

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Windows that each predict what no other does; the first one's context is the prefix token."""
        windows, owners = [], []
        for number, (text,) in enumerate(request.args for request in requests):
            for window in utils.get_rolling_token_windows(token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(number)
        sums = np.zeros(len(requests), np.float64)
        for number, (score, _) in zip(owners, self._loglikelihood_tokens(windows, kind="rolling"), strict=True):
            sums[number] += score
        for request, score in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, float(score))
        return sums.tolist()

    def generate_until(self, requests, disable_tqdm=False):
        rows, stops, cut = [], [], 0
        for number, (context, options) in enumerate(request.args for request in requests):
            sampling, until = self.sampling_of(options, number)
            ids = self.tok_encode(context)
            room = self.max_length - sampling["max_tokens"]
            if room <= 0:
                raise MoerunError(f"request {number}: it may generate {sampling['max_tokens']} tokens, and the model looks at {self.max_length}: "
                                  "give --gen_kwargs max_gen_toks=N")
            if not ids:
                ids = [self.prefix_token_id]
            cut += len(ids) > room
            rows.append(Row(ids[-room:], sampling))
            stops.append(until)
        if not rows:
            return []
        self._say_cut(cut, len(rows))
        answers = run_rows(self.settings, "generate", rows, ("tokens", "offsets"))
        out = []
        for request, until, tokens in zip(requests, stops, answers.rows("tokens", "offsets"), strict=True):
            out.append(self.text_of(tokens.tolist(), until))
            self.cache_hook.add_partial("generate_until", request.args, out[-1])
        return out

    def sampling_of(self, options, number):
        """A request's generation options as a row's sampling, and its stop strings with EOS among them."""
        options = normalize_gen_kwargs(options, self.max_gen_toks)
        until = handle_stop_sequences(options.pop("until", None), eos=None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id))
        sampling = {"max_tokens": options.pop("max_gen_toks"), "temperature": float(options.pop("temperature", 0.0))}
        ends = [] if self.eot_token_id is None else [self.eot_token_id]
        for name, value in options.items():
            if name in SAMPLING and value is not None:
                sampling[SAMPLING[name]] = value
            elif name not in WITHOUT_EFFECT or (name.startswith("num_") and value != 1):
                raise MoerunError(f"request {number}: moerun does not know the generation option {name}={value!r}; it takes temperature, until, max_gen_toks, {', '.join(SAMPLING)}")
        sampling["stop_token_ids"] = [*ends, *sampling.get("stop_token_ids", [])]
        # With a token behind which the answer begins, stop strings count from there on.
        stop = [text for text in until if text] if self.think_end_token is None else []
        return {**sampling, **({"stop": stop} if stop else {})}, until

    def text_of(self, tokens, until):
        """As lm-eval's hf: decoded without special tokens, and before the first of the stop strings."""
        if isinstance(self.think_end_token, int) and self.think_end_token in tokens:
            tokens = tokens[len(tokens) - tokens[::-1].index(self.think_end_token) :]
            return postprocess_generated_text(self.tokenizer.decode(tokens, skip_special_tokens=True).lstrip(), until, None)
        end = self.think_end_token if isinstance(self.think_end_token, str) else None
        return postprocess_generated_text(self.tokenizer.decode(tokens, skip_special_tokens=True), until, end)

    def get_model_info(self):
        """What lm-eval's results keep of the model."""
        return {"moerun_runs": str(self.settings.runs), "moerun_keys": self.settings.keys}

    @staticmethod
    def _say_cut(cut, rows):
        if cut:
            logger.warning("%s of %s requests are longer than the model takes; the end of each is kept", cut, rows)


def _shown(texts):
    return "a window of a rolling text" if texts is None else repr(texts[1][:60])


def read_tokenizer(place, add_bos_token):
    from transformers import AutoTokenizer

    options = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    try:
        return AutoTokenizer.from_pretrained(str(pathlib.Path(place)) if pathlib.Path(place).exists() else str(place), **options)
    except (OSError, ValueError) as error:
        raise MoerunError(f"{place}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
