#include "job/job_file.h"

#include <fmt/format.h>

#include <fstream>
#include <string>
#include <vector>

#include "job/nearest.h"
#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/temporary_directory.h"

using namespace moerun;

namespace {

const char kSmallest[] = "model: {path: m}\ninput: {path: in.jsonl}\noutput: {path: out.h5}\n";

/// What a job is refused with; empty when it is not.
std::string faults_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    parse_job(yaml, "job.yaml", overrides);
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

std::string faults_with(const std::string& more) { return faults_of(kSmallest + more); }

}  // namespace

TEST_CASE("a job of the required keys alone has every default", "[job]") {
  const Job job = parse_job(kSmallest, "job.yaml");
  Job expected;
  expected.model.path = "m";
  expected.input.path = "in.jsonl";
  expected.output.path = "out.h5";
  expected.yaml = job.yaml;
  CHECK(job == expected);
}

TEST_CASE("every key of a job is read, and the written job reads back to the same one", "[job]") {
  const Job job = parse_job(R"(
model: {path: "123", dtype: half, load_format: dummy, max_model_len: 2048}
parallel: {tensor: 4, data: 2, replicas: 3, all_to_all: mpi, redundant_experts: 16, allow_shared_gpu: true}
device: null
null_step_ms: 0.25
memory: {gpu_memory_utilization: 0.85, block_size: 16, num_blocks: 99, kv_cache_dtype: fp8, cpu_kv_gib: 0.5, swap_space_gib: 2}
enforce_eager: true
scheduler: {max_num_seqs: 7, max_num_batched_tokens: 16}
input:
  random: {num_prompts: 10, input_len: 20, output_len: 30, range_ratio: 0.1, seed: 18446744073709551615}
  limit: 5
  on_error: row
sampling:
  max_tokens: 64
  min_tokens: 3
  temperature: 0.8
  top_p: 0.95
  top_k: 40
  min_p: 0.05
  repetition_penalty: 1.1
  presence_penalty: -0.5
  frequency_penalty: 0.3
  seed: 42
  stop: ["\n\n", 'null', "größe: \"x\"", "\x07"]
  stop_token_ids: [1, 2]
  logit_bias: {50: 2.5, "5": -100, 51: 0}
  allowed_token_ids: [51, 5, 50, 5]
  bad_words: [no, " way"]
  ignore_eos: true
  logprobs: 0
  prompt_logprobs: true
output: {path: out/a b.h5, jsonl: ~/x.jsonl}
report: {path: "true", html: r.html}
limits: {time: "3:55:00", grace: 90}
)",
                            "job.yaml");
  CHECK(job.model.path == "123");
  CHECK(job.model.dtype == DType::float16);
  CHECK(job.model.load_format == Job::Model::LoadFormat::dummy);
  CHECK(job.model.max_model_len == 2048);
  CHECK(job.parallel == Job::Parallel{4, 2, 3, Job::Parallel::AllToAll::mpi, 16, true});
  CHECK(job.device == Job::DeviceKind::null);
  CHECK(job.null_step_ms == 0.25);
  CHECK(job.memory == Job::Memory{0.85, 16, 99, 0.5, DType::e4m3, 2});
  CHECK(job.enforce_eager);
  CHECK(job.scheduler == Job::Scheduler{7, 16});
  CHECK(job.input == Job::Input{"", 5, RandomInput{10, 20, 30, 0.1, UINT64_MAX}, Job::Input::OnError::row});
  const SamplingParams sampling{.draw = {.seed = 42,
                                         .temperature = 0.8f,
                                         .top_p = 0.95f,
                                         .top_k = 40,
                                         .min_p = 0.05f,
                                         .repetition_penalty = 1.1f,
                                         .presence_penalty = -0.5f,
                                         .frequency_penalty = 0.3f,
                                         .logprobs = 0},
                                .max_tokens = 64,
                                .min_tokens = 3,
                                .stop = {"\n\n", "null", "größe: \"x\"", "\x07"},
                                .stop_token_ids = {1, 2},
                                .ignore_eos = true,
                                .logit_bias = {{5, -100}, {50, 2.5f}},
                                .allowed_token_ids = {5, 50, 51},
                                .bad_words = {"no", " way"},
                                .prompt_logprobs = 0};
  CHECK(job.sampling == sampling);
  CHECK(job.output == Job::Output{"out/a b.h5", "~/x.jsonl"});
  CHECK(job.report.path == "true");
  CHECK(job.report.html == "r.html");
  CHECK(job.limits == Job::Limits{14100, 90});

  CHECK_THAT(job.yaml, ContainsSubstring("  temperature: 0.8\n"));
  CHECK(parse_job(job.yaml, "again") == job);
}

TEST_CASE("overrides win over the file and take sections away", "[job]") {
  const Job job = parse_job(
      kSmallest, "job.yaml",
      {"parallel.tensor=4", "sampling={temperature: 0.5, stop: [a, b]}", "device=null", "limits.time=1:30",
       "sampling.stop=c", "input.path=null", "input.random={num_prompts: 1, input_len: 2, output_len: 3}"});
  CHECK(job.parallel.tensor == 4);
  CHECK(job.sampling.draw.temperature == 0.5f);
  CHECK(job.sampling.stop == std::vector<std::string>{"c"});
  CHECK(job.device == Job::DeviceKind::null);
  CHECK(job.limits.time_s == 90);
  CHECK(job.input.path.empty());
  REQUIRE(job.input.random);
  CHECK(job.input.random->output_len == 3);

  CHECK(!parse_job(job.yaml, "again", {"input.random=null", "input.path=x.txt"}).input.random);
  CHECK(faults_of(kSmallest, {"parallel.tensor=0"}) ==
        "command line: parallel.tensor=0: parallel.tensor must be an integer from 1 to 65536, not 0");
  CHECK(faults_of(kSmallest, {"parallel.tensr=2"}) ==
        "command line: parallel.tensr=2: there is no key parallel.tensr; did you mean parallel.tensor?");
  CHECK(faults_of(kSmallest, {"tensor"}) == "command line: tensor: an override is key=value");
}

TEST_CASE("all faults of a job are told at once, with their lines", "[job]") {
  const std::string faults = faults_of(R"(model:
  pth: x
  dtype: fp8
temperature: 0.5
input: {path: in.csv}
sampling:
  seed:
  seed: 4
  top_p: 1.5
  logprobs: 21
  stop: ["a", ""]
)");
  CHECK(faults == R"(job.yaml:2: there is no key model.pth; did you mean model.path?
job.yaml:4: there is no key temperature; did you mean sampling.temperature?
job.yaml:7: sampling.seed has no value
job.yaml:8: sampling.seed is given twice, first at job.yaml:7
job.yaml:3: model.dtype must be one of auto, float16, half, bfloat16, float32, not "fp8"
job.yaml:9: sampling.top_p must be a number above 0 and at most 1, not 1.5
job.yaml:11: sampling.stop must be a text or a list of texts that are not empty, not ["a",""]
job.yaml:10: sampling.logprobs must be null or an integer from 0 to 20, not 21
job.yaml:1: model.path is missing
job.yaml:1: output.path is missing
job.yaml:5: input.path must end in .jsonl or .h5 or .hdf5 or .txt, not "in.csv")");
}

TEST_CASE("jobs that are no mapping of keys are refused", "[job]") {
  CHECK_THAT(faults_of(""), ContainsSubstring("job.yaml:1: model.path is missing"));
  CHECK(faults_of("- a\n") == "job.yaml:1: a job is a mapping of keys to values");
  CHECK(faults_of("a: 1\n---\nb: 2\n") == "job.yaml:2: a second YAML document begins here; a job is one");
  CHECK(faults_of("model: [1\nb: 2\n") == "job.yaml:2: not YAML: end of sequence flow not found");
  CHECK(faults_of("model:\n  path: \"\xff\"\n") == "job.yaml:2: byte 16 is no valid UTF-8");
  const std::string nul(1, '\0');
  CHECK(faults_of("model:\n  path: d" + nul + nul + nul + "\n") ==
        "job.yaml:2: byte 16 is NUL: a job is UTF-8 text");
  CHECK(faults_of("m" + nul + "o" + nul) == "job.yaml:1: byte 1 is NUL: a job is UTF-8 text");
  CHECK(faults_with("sampling: 3\n") == "job.yaml:4: sampling is a section: it must have keys of its own");
  CHECK(faults_with("device: {a: 1}\n") == "job.yaml:4: device must be a value, not a section");
  CHECK(faults_with("? [a]\n: 1\n") == "job.yaml:4: a key must be a word");
  CHECK(faults_with("sampling: {stop: &a [*a]}\n") == "job.yaml:4: an alias within what it names");
}

TEST_CASE("types, ranges and contradictions of job values", "[job]") {
  const auto [more, words] = GENERATE(table<std::string, std::string>({
      {"parallel: {tensor: two}", "parallel.tensor must be an integer from 1 to 65536, not \"two\""},
      {"parallel: {data: 0}", "parallel.data must be auto or an integer from 1 to 65536, not 0"},
      {"parallel: {tensor: 1.5}", "not 1.5"},
      {"parallel: {tensor: true}", "not true"},
      {"device: gpu", "device must be one of auto, cpu, cuda, null, not \"gpu\""},
      {"device:", "device has no value"},
      {"enforce_eager: yes", "enforce_eager must be true or false, not \"yes\""},
      {"memory: {block_size: 48}", "memory.block_size must be a power of two from 1 to 4096, not 48"},
      {"memory: {gpu_memory_utilization: 0}", "must be a number above 0 and at most 1, not 0"},
      {"memory: {gpu_memory_utilization: .nan}", "not \".nan\""},
      {"sampling: {top_p: 1e-60}", "must be a number above 0 and at most 1 as float32 has it, not 1e-60"},
      {"sampling: {seed: -1}", "sampling.seed must be an integer from 0 to 18446744073709551615, not -1"},
      {"sampling: {seed: 18446744073709551616}", "sampling.seed must be an integer from 0"},
      {"sampling: {max_tokens: 4294967296}",
       "sampling.max_tokens must be an integer of at least 0, not 42949"},
      {"sampling: {max_tokens: 2, min_tokens: 3}",
       "job.yaml:4: sampling: min_tokens (3) is more than max_tokens (2)"},
      {"sampling: {stop: [1]}", "sampling.stop must be a text or a list"},
      {"sampling: {logit_bias: {a: 1}}", "sampling.logit_bias has a key that must be a token id, not \"a\""},
      {"sampling: {logit_bias: {5: 1, 05: 2}}", "sampling.logit_bias names token id 5 twice"},
      {"sampling: {logit_bias: {5: 1, 5: 2}}", "sampling.logit_bias has \"5\" twice"},
      {"sampling: {logit_bias: {5: 101}}",
       "sampling.logit_bias 5: must be a number from -100 to 100, not 101"},
      {"sampling: {logit_bias: [1]}",
       "sampling.logit_bias must be an object of token ids and numbers, not [1]"},
      {"sampling: {allowed_token_ids: []}",
       "sampling.allowed_token_ids must be a list of token ids that is not empty, not []"},
      {"sampling: {bad_words: [a, '']}",
       "sampling.bad_words must be a list of texts that are not empty, not"},
      {"sampling: {stop_token_ids: {a: 1}}", "sampling.stop_token_ids must be a value, not a section"},
      {"sampling: {stop_token_ids: [-1]}", "sampling.stop_token_ids must be a list of token ids, not [-1]"},
      {"sampling: {temperature: '0.5'}", "sampling.temperature must be a number from 0 to 100, not \"0.5\""},
      {"limits: {time: 1:60:00}", "limits.time must be seconds or \"H:MM:SS\", not \"1:60:00\""},
      {"limits: {time: -5}", "limits.time must be seconds"},
      {"limits: {grace: '1:2:3'}", "limits.grace must be seconds"},
      {"null_step_ms: 3", "null_step_ms is for device: null alone"},
      {"parallel: {all_to_all: p2p}\ndevice: cpu", "p2p needs device: cuda"},
      {"report: {path: 3}", "report.path must be a text (in quotes where it looks like a number), not 3"},
  }));
  CAPTURE(more);
  CHECK_THAT(faults_with(more + "\n"), ContainsSubstring(words));
  CHECK_THAT(faults_with(more + "\n"), ContainsSubstring("job.yaml:4: "));
}

TEST_CASE("input.path and input.random exclude each other, and a random input is whole", "[job]") {
  const std::string rest = "model: {path: m}\noutput: {path: o.h5}\n";
  CHECK(faults_of(rest + "input: {path: a.txt, random: {num_prompts: 1, input_len: 1, output_len: 1}}") ==
        "job.yaml:3: input.path and input.random exclude each other (input.random=null takes it away)");
  CHECK(faults_of(rest + "input: {}") == "job.yaml:3: input.path (or input.random) is missing");
  CHECK(faults_of(rest + "input:\n  random: {input_len: 4}\n") ==
        "job.yaml:4: input.random.num_prompts is missing\njob.yaml:4: input.random.output_len is missing");
}

TEST_CASE("a job file that cannot be read is bad input", "[job]") {
  const TemporaryDirectory dir;
  CHECK_THROWS_WITH(read_job(dir / "none.yaml"), ContainsSubstring("none.yaml cannot be read: No such file"));
  CHECK_THROWS_WITH(read_job(dir.path()), ContainsSubstring("cannot be read: Is a directory"));
  std::ofstream(dir / "job.yaml") << "\xEF\xBB\xBF" << kSmallest;
  CHECK(read_job(dir / "job.yaml").model.path == "m");
}

TEST_CASE("the nearest name is the one with the fewest letters changed", "[job]") {
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(nearest("max_token", {"min_tokens", "max_tokens"}) == "max_tokens");
  CHECK(nearest("seed", {"sampling.seed", "input.path"}) == "sampling.seed");
}

TEST_CASE("texts that are made to hang or crash a reader of YAML are refused at once", "[job]") {
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(has(faults_of(","), "job.yaml:1: not YAML: a value cannot go on with ,; put it in quotes"));
  for (const char* whole :
       {"output.path= a.h5 ", "output.path=a#b.h5", "output.path=\"a #1.h5\" # quoted", "output.jsonl=~"})
    CHECK(faults_of(kSmallest, {whole}).empty());
  CHECK(has(faults_of(kSmallest, {"sampling.stop=,"}),
            "command line: sampling.stop=,: not YAML: a value cannot go on with ,; put it in quotes"));
  CHECK(faults_of(kSmallest, {"sampling.stop=','"}).empty());
  CHECK(has(faults_with("sampling: {stop: " + std::string(50'000, '[')), "more than 16 lists and mappings"));
  CHECK(has(faults_of(std::string(50'000, '{')), "more than 16 lists and mappings"));
  CHECK(has(faults_of(std::string(300'000, ' ')), "job.yaml:1: more than 262144 bytes, which no job needs"));
  CHECK(has(faults_with("sampling: &s {stop: *s}"), "an alias within what it names"));
  std::string bomb = "a0: &a0 x\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{0}: &a{0} [", i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("*a{}, ", i - 1);
    bomb += "]\n";
  }
  CHECK(has(faults_of(bomb), "more than 100000 values, aliases counted"));
  const std::string long_key = faults_with(std::string(1000, 'k') + ": 1");
  CHECK(has(long_key, "there is no key kkkk"));
  CHECK(long_key.size() < 400);
}

TEST_CASE("an alias stands for what it names", "[job]") {
  const Job job = parse_job(
      std::string(kSmallest) + "sampling: {stop: &end [a, b], min_tokens: &n 2, max_tokens: *n}", "job.yaml");
  CHECK(job.sampling.stop == std::vector<std::string>{"a", "b"});
  CHECK(job.sampling.max_tokens == 2);
}
