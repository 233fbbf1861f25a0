"""Stands in for vLLM in the test of tests/bench/peer: what of its interface that calls, with two requests at a time."""
import os
import time
from types import SimpleNamespace

__version__ = "stand-in"


class SamplingParams:
    def __init__(self, temperature, max_tokens, ignore_eos, detokenize):
        assert temperature == 0 and ignore_eos and not detokenize
        self.max_tokens = max_tokens - int(os.environ.get("STAND_IN_DROPS", "0"))


class LLM:
    def __init__(self, model, load_format, skip_tokenizer_init, dtype, enable_prefix_caching, max_model_len, max_num_seqs=2):
        assert load_format == "dummy" and skip_tokenizer_init and dtype == "bfloat16" and not enable_prefix_caching
        self.llm_engine, self.waiting, self.running, self.at_once, self.longest = self, [], {}, max_num_seqs, max_model_len

    def add_request(self, request_id, prompt, sampling):
        assert len(prompt["prompt_token_ids"]) + sampling.max_tokens <= self.longest
        self.waiting.append((request_id, sampling.max_tokens))

    def has_unfinished_requests(self):
        return bool(self.waiting or self.running)

    def step(self):
        time.sleep(0.0005)
        while self.waiting and len(self.running) < self.at_once:
            name, most = self.waiting.pop(0)
            self.running[name] = [0, most]
        out = []
        for name, state in list(self.running.items()):
            state[0] += 1
            done = state[0] == state[1]
            out.append(SimpleNamespace(request_id=name, finished=done, outputs=[SimpleNamespace(token_ids=[0] * state[0])]))
            if done:
                del self.running[name]
        return out
