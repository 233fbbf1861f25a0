#include "job/key_docs.h"

#include <fmt/format.h>

#include <algorithm>

#include "job/job_fields.h"
#include "moerun/error.h"

namespace moerun {

namespace {

struct Text {
  const char *key, *type, *meaning;
};

// Markdown, of which `code` alone is used.
constexpr Text kTexts[] = {
    {"model.path", "path",
     "Hugging Face folder: `config.json`, `*.safetensors` with or without an index, `tokenizer.json`, "
     "`tokenizer_config.json`, `generation_config.json`"},
    {"model.dtype", "`auto` `float16`/`half` `bfloat16` `float32`",
     "of weights and activations; `auto` is the checkpoint's on CUDA and float32 on the CPU"},
    {"model.load_format", "`auto` `dummy`",
     "`dummy` fills the weights from the configuration alone, the same on every rank and layout: to measure "
     "without a download"},
    {"model.verify_weights", "`full` `sampled`",
     "what a job that goes on compares of the weights. `full`: every byte, read once at the start by the "
     "ranks of each node together (XXH3-128), which leaves the files in the page cache for loading. "
     "`sampled`: names, shapes and some values of each tensor, as a line at the start says; the output's "
     "`weights_checksum` then begins with `sampled:`"},
    {"model.max_model_len", "`auto` or tokens",
     "prompt and answer together; `auto` is the model's `max_position_embeddings`, and one more is the most, "
     "since nothing is predicted from the last token. A longer prompt is an error row"},
    {"parallel.tensor", "ranks",
     "ranks that share a layer's attention; a power of two that divides the attention heads"},
    {"parallel.data", "`auto` or groups",
     "groups of `tensor` ranks in an engine; `auto` is what the number of ranks leaves"},
    {"parallel.replicas", "engines", "engines that share the coordinator and nothing else"},
    {"parallel.all_to_all", "`auto` `mpi` `nccl` `p2p`",
     "what carries tokens to their experts: one-sided kernels over peer memory (`p2p`), NCCL, or MPI through "
     "the host's memory. `auto` is `p2p` where every GPU of an engine can address the others, else `nccl`; "
     "`mpi` on CPUs and for ranks that share a GPU. The report says which, and why"},
    {"parallel.redundant_experts", "copies",
     "copies of the busiest experts that an engine has room for in each layer, spread over its ranks. "
     "Answers keep the same bits"},
    {"parallel.allow_shared_gpu", "bool",
     "several ranks on one GPU, for testing. `nccl` then needs NCCL 2.30.3 or later and "
     "`NCCL_MULTI_RANK_GPU_ENABLE=1` in every rank's environment; NCCL calls that experimental, and does not "
     "promise more than two ranks a GPU"},
    {"device", "`auto` `cpu` `cuda` `null`",
     "`auto` is `cuda` where a GPU can be used and `cpu` where the machine has none, as the first line says; "
     "where a GPU is there and cannot be used it is an error that says why. `null` computes nothing and "
     "draws its tokens: it measures coordinator, scheduler and writer alone"},
    {"null_step_ms", "ms", "how long a step of `device: null` pretends to take"},
    {"memory.gpu_memory_utilization", "(0, 1]",
     "the part of a GPU's memory for weights, activations, keys and values; 0.99 where nobody else uses the "
     "GPU. The embedding is in pinned memory of the host, on each rank (0.58 GiB for Qwen3-30B-A3B)"},
    {"memory.block_size", "tokens", "of a key/value block; a power of two up to 4096"},
    {"memory.num_blocks", "`auto` or blocks", "key/value blocks a group; `auto` is what memory allows"},
    {"memory.kv_cache_dtype", "`auto` `fp8`",
     "how keys and values are kept: `auto` in the dtype of activations; `fp8` in e4m3, rounded without a "
     "scale: half the room of 16 bits, and other answers"},
    {"memory.cpu_kv_gib", "GiB", "room for keys and values a rank on the CPU device"},
    {"memory.swap_space_gib", "GiB",
     "of the host's memory a rank, taken as it is needed, where preempted sequences keep their keys and "
     "values; what does not fit is computed again"},
    {"enforce_eager", "bool", "`true`: no CUDA graphs"},
    {"scheduler.max_num_seqs", "`auto` or sequences",
     "that run at once in a group. `auto` is 64 on the CPU. On CUDA it is 256, and up to 1024 where the keys "
     "and values of all that run will have room until they end, by the mean length of the answers that have "
     "ended, or by `max_tokens` until 32 have. A number is meant as it is"},
    {"scheduler.max_num_batched_tokens", "`auto` or tokens",
     "of one step of a group; `auto` is 8192 on CUDA, 512 on the CPU. A job with more than four times the "
     "rows that run at once takes prompts at the rate at which answers end, so that steps are alike and "
     "sequences end one by one"},
    {"scheduler.prefix_sharing", "`auto` `off`",
     "prompts that begin alike are computed once as far as they do, and rows that are equal once; those of "
     "`input.random` are not looked at. Answers keep the same bits"},
    {"input.path", "path", "`.jsonl`, `.h5`/`.hdf5` or `.txt`"},
    {"input.limit", "rows", "the first so many; 0 is all"},
    {"input.on_error", "`fail` `row`",
     "a bad row refuses the job, or is answered with an error while the others run"},
    {"input.truncate_prompt", "`none` `left`",
     "`left`: of a prompt that is too long the last `model.max_model_len` − `max_tokens` tokens are kept, so "
     "that its answer has room; `none`: a prompt beyond `model.max_model_len` is answered with an error"},
    {"input.random.num_prompts", "rows", "of the input"},
    {"input.random.input_len", "tokens", "of a prompt"},
    {"input.random.output_len", "tokens", "of an answer, which is as long as asked for (`ignore_eos`)"},
    {"input.random.range_ratio", "[0, 1]", "lengths are drawn from `len·(1 ± range_ratio)`"},
    {"input.random.seed", "integer below 2⁶⁴", "of lengths and tokens"},
    {"input.allow_external", "bool",
     "an HDF5 input may reach into other files: external links, external raw data, virtual datasets with "
     "outside sources. Without it they are refused, since such an input takes any file of the machine as "
     "prompts"},
    {"sampling.defaults", "`none` `model`",
     "`model`: the `temperature`, `top_p`, `top_k`, `min_p` and `repetition_penalty` of the model's "
     "`generation_config.json` hold where neither the job nor a row gives its own, as vLLM takes them; a "
     "line at the start and the output's `sampling_defaults` say which were taken. `none`: that file "
     "changes no answer, and a line says what it asks for"},
    {"sampling.n", "1…16384", "answers to a row, each from draws of its own; the prompt is computed once"},
    {"sampling.max_tokens", "tokens", "of an answer; 0 with `prompt_logprobs` scores alone"},
    {"sampling.min_tokens", "tokens",
     "end-of-sequence and stop token ids cannot be chosen before; a stop string that is complete in fewer "
     "tokens ends nothing, then or later"},
    {"sampling.temperature", "[0, 100]", "0 is greedy, and so is all below 1e-5, as in vLLM"},
    {"sampling.top_p", "(0, 1]", "nucleus: the fewest tokens whose probabilities add up to this"},
    {"sampling.min_p", "[0, 1]", "least probability, as a part of the greatest"},
    {"sampling.top_k", "integer", "the most likely to choose from; 0 or -1 is all"},
    {"sampling.repetition_penalty", "> 0", "over prompt and answer"},
    {"sampling.presence_penalty", "[-2, 2]", "over the answer, once for each token that it has"},
    {"sampling.frequency_penalty", "[-2, 2]", "over the answer, for each time that it has a token"},
    {"sampling.seed", "integer below 2⁶⁴",
     "what draws are keyed by, with the row's number (and the answer's); a row's own `seed` is the key "
     "alone"},
    {"sampling.stop", "text or list",
     "an answer ends at the first token (from the `min_tokens`-th on) whose text completes one of these, and "
     "its text before the completed one that begins first. They are looked for in the answer's text, not in "
     "the prompt's; one that has a whole special token in it (`<\\|im_end\\|>`) also in the text with "
     "special tokens written out"},
    {"sampling.include_stop_str_in_output", "bool",
     "the text ends behind the stop string that ended it instead of before"},
    {"sampling.skip_special_tokens", "bool",
     "`false`: the text has special tokens in it, written out; the token that ends the answer only with "
     "`include_stop_str_in_output`"},
    {"sampling.truncate_prompt_tokens", "`null`, −1 or tokens",
     "of a longer prompt this many tokens are kept, the last; −1: `model.max_model_len`"},
    {"sampling.stop_token_ids", "list", "the answer ends with the first of these"},
    {"sampling.logit_bias", "`{id: bias}`",
     "[-100, 100] for each token id (in quotes, as in OpenAI's bodies, or not): added to its logit before "
     "anything else"},
    {"sampling.allowed_token_ids", "list", "no other token can be chosen"},
    {"sampling.bad_words", "list of texts",
     "that no answer has: of the tokens that the tokenizer makes of one (as it stands, and behind a space) "
     "the last cannot be chosen where the answer ends with the others"},
    {"sampling.structured_outputs",
     "`{json: …}` `{regex: …}` `{choice: […]}` `{grammar: …}` `{json_object: true}`",
     "what every answer is: JSON of a schema, a text that a regular expression matches as a whole, one of "
     "some texts, a text of a grammar (EBNF with the rule `root`), or any JSON object "
     "([more](formats.md#structured-output))"},
    {"sampling.thinking_budget", "`null` or tokens",
     "of thoughts, from `<think>` on, after which `</think>` is chosen"},
    {"sampling.ignore_eos", "bool", "answers do not end at the model's end-of-sequence tokens"},
    {"sampling.logprobs", "`null` or 0…20",
     "0: log-probabilities of the chosen tokens; n: and of the n most likely"},
    {"sampling.prompt_logprobs", "bool or 0…20",
     "`true` or 0: log-probabilities of the prompt's tokens; n: and of the n most likely in the place of "
     "each"},
    {"sampling.prompt_logprobs_start", "position",
     "the first token that is scored; those before it cost no logits and are not written"},
    {"sampling.prompt_is_greedy", "bool",
     "with `prompt_logprobs`, whether each scored token is the one that the model would have chosen"},
    {"output.path", "path",
     "`.h5`; directories of outputs are made. `OUTPUT.run/` beside it holds what is sealed while the job "
     "runs"},
    {"output.jsonl", "path", "the same answers as lines"},
    {"output.errors", "path",
     "rows with an error as lines, which then are not in `output.jsonl`, as OpenAI's Batch API gives them"},
    {"output.routed_experts", "bool",
     "the experts that each token of prompt and answer was routed to, in each layer, as columns of "
     "`output.path` ([more](formats.md#routed-experts)): bytes a token as `moerun check` says"},
    {"report.path", "path", "the report as JSON"},
    {"report.html", "path", "the report as a page with figures: one file, no script"},
    {"report.prometheus", "path",
     "`.prom`: how the job stands, in the text format of Prometheus, written anew every few seconds for a "
     "node exporter's textfile collector"},
    {"limits.time", "seconds or `\"H:MM:SS\"`",
     "stop then, resumably (exit code 75); 0 is never. Slurm's own end time counts when it is known"},
    {"limits.grace", "seconds or `\"H:MM:SS\"`",
     "how long running sequences may go on after the limit or SIGUSR1"},
};

const Text* text_of(const std::string& key) {
  const auto* const found =
      std::find_if(std::begin(kTexts), std::end(kTexts), [&](const Text& text) { return text.key == key; });
  return found == std::end(kTexts) ? nullptr : found;
}

/// A default as a user would write it.
std::string default_text(const std::string& key, const Json& value) {
  if (key == "input.path") return "required, or `input.random`";
  for (const char* required : {"model.path", "output.path", "input.random.num_prompts",
                               "input.random.input_len", "input.random.output_len"})
    if (key == required) return "required";
  for (const char* none :
       {"sampling.logprobs", "sampling.thinking_budget", "sampling.truncate_prompt_tokens"})
    if (key == none) return "`null`";
  if (value.is_null() || (value.is_structured() && value.empty())) return "none";
  if (value.is_number()) return fmt::format("{}", value.get<double>());
  return "`" + (value.is_string() ? value.get<std::string>() : value.dump()) + "`";
}

template <class T>
void add_docs(const std::vector<Field<T>>& fields, const T& defaults, std::vector<KeyDoc>& out) {
  for (const Field<T>& field : fields) {
    const Text* const text = text_of(field.name);
    if (!text) throw Error(fmt::format("the key {} is not described in key_docs.cpp", field.name));
    out.push_back({field.name, text->type, default_text(field.name, field.write(defaults)), text->meaning});
  }
}

/// A table of Markdown writes | as \\|.
std::string without_escapes(std::string markdown) {
  for (size_t at = markdown.find("\\|"); at != std::string::npos; at = markdown.find("\\|", at))
    markdown.erase(at, 1);
  return markdown;
}

std::string without_marks(const std::string& markdown) {
  std::string text = without_escapes(markdown);
  std::erase(text, '`');
  return text;
}

/// Paragraphs of at most `width` characters a line, each line behind `indent`.
std::string wrapped(const std::string& text, size_t width, const std::string& indent) {
  const auto columns = [](std::string_view word) {  // bytes that begin a character
    return static_cast<size_t>(
        std::count_if(word.begin(), word.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
  };
  std::string out, line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!line.empty() && columns(line) + 1 + columns(word) > width) {
      out += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return line.empty() ? out : out + indent + line + "\n";
}

/// Text for roff: `code` is bold, and nothing is taken for a request.
std::string roff(const std::string& markdown) {
  std::string out;
  bool code = false;
  for (const char c : without_escapes(markdown)) {
    if (c == '`') {
      out += code ? "\\fR" : "\\fB";
      code = !code;
    } else if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return (out.starts_with('.') || out.starts_with('\'')) ? "\\&" + out : out;
}

}  // namespace

std::vector<KeyDoc> key_docs() {
  std::vector<KeyDoc> out;
  for (const Field<Job>& field : job_fields()) {
    add_docs<Job>({field}, Job(), out);
    if (field.name == "input.path") add_docs(random_input_fields(), RandomInput(), out);
  }
  return out;
}

std::string keys_as_text() {
  std::string out =
      "The keys of a job. In YAML a dot is a section (model: {path: …}); on the command line KEY=VALUE\n"
      "overrides the job's.\n";
  for (const KeyDoc& doc : key_docs()) {
    out += fmt::format("\n{}  ({}; default {})\n", doc.key, without_marks(doc.type),
                       without_marks(doc.default_value));
    out += wrapped(without_marks(doc.meaning), 90, "    ");
  }
  return out;
}

std::string keys_as_markdown() {
  std::string out = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
  for (const KeyDoc& doc : key_docs())
    out += fmt::format("| `{}` | {} | {} | {} |\n", doc.key, doc.type, doc.default_value, doc.meaning);
  return out;
}

std::string keys_as_roff() {
  std::string out;
  for (const KeyDoc& doc : key_docs())
    out += fmt::format(".TP\n.B {}\n({}; default {})\n.br\n{}\n", roff(doc.key), roff(doc.type),
                       roff(doc.default_value), roff(doc.meaning));
  return out;
}

}  // namespace moerun
