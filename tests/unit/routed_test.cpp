// `output.routed_experts`: from where routers leave their ids to the output's columns. How ids follow the
// cache's blocks is in prefix_sharing_test.cpp, whole runs against transformers' routers are in tests/routed.
#include "device/cpu_device.h"
#include "engine/plan_wire.h"
#include "engine/preparer.h"
#include "io/hdf5.h"
#include "io/segment.h"
#include "model/blocks/routed_ids.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

RoutedShape shape_of(int32_t num_experts) {
  return {.layers = {1, 3}, .experts_per_token = 2, .num_experts = num_experts};
}

}  // namespace

TEST_CASE("routed experts: ids take one byte where a value is left that is no id", "[routed]") {
  CHECK(shape_of(255).id_bytes() == 1);
  CHECK(shape_of(255).none() == 255);
  CHECK(shape_of(256).id_bytes() == 2);
  CHECK(shape_of(256).none() == 65535);
  CHECK(shape_of(256).token_bytes() == 8);
  ModelConfig config;
  config.num_hidden_layers = 3, config.num_experts = 512, config.num_experts_per_tok = 10;
  config.sparse = {false, true, true};
  CHECK(routed_shape(config) == RoutedShape{{1, 2}, 10, 512});
}

TEST_CASE("routed experts: each layer's ids come to the host, token by token", "[routed]") {
  constexpr int64_t kRows = 5;
  for (const int32_t num_experts : {40, 300}) {
    const auto device = make_cpu_device({});
    RoutedIds ids(*device, shape_of(num_experts), kRows, 2);
    for (const int64_t n : {int64_t{3}, kRows, int64_t{1}}) {
      const auto id = [&](size_t layer, int64_t token, int64_t k) {
        return static_cast<int32_t>((layer * 100 + static_cast<size_t>(token * 10 + k)) %
                                    static_cast<size_t>(num_experts));
      };
      for (const size_t layer : {size_t{1}, size_t{3}}) {
        const Ints at = ids.of_layer(layer, n);
        REQUIRE(at.size == n * 2);
        for (int64_t token = 0; token < n; ++token)
          for (int64_t k = 0; k < 2; ++k) at.data[token * 2 + k] = id(layer, token, k);
      }
      ids.begin_copy(n);
      const std::vector<uint8_t> bytes = ids.take(n);
      const size_t size = shape_of(num_experts).id_bytes();
      REQUIRE(bytes.size() == static_cast<size_t>(n) * 4 * size);
      size_t i = 0;
      for (int64_t token = 0; token < n; ++token)
        for (const size_t layer : {size_t{1}, size_t{3}})
          for (int64_t k = 0; k < 2; ++k, ++i) {
            const int32_t got = bytes[i * size] + (size == 2 ? bytes[i * size + 1] * 256 : 0);
            CHECK(got == id(layer, token, k));
          }
    }
  }
}

TEST_CASE("routed experts: nothing is kept where nobody asks", "[routed]") {
  const auto device = make_cpu_device({});
  RoutedIds ids(*device, {}, 4, 2);
  CHECK(ids.of_layer(0, 3).data == ids.of_layer(7, 3).data);  // one place for all layers
  ids.begin_copy(3);
  CHECK(ids.take(3).empty());
}

TEST_CASE("routed experts: ranks' parts are put together in their order", "[routed]") {
  const StepResult first{.rows = {1}, .results = {{.token = 7}}, .routed = {1, 2, 3}};
  const StepResult second{.rows = {0}, .results = {{.token = 9}}, .routed = {4}};
  StepResult all{.results = std::vector<TokenResult>(2)};
  for (const StepResult& one : {first, second}) {
    const std::string bytes = pack(one);
    WireReader in(bytes);
    add_result(in, all);
  }
  CHECK(all.routed == std::vector<uint8_t>{1, 2, 3, 4});
  CHECK(all.results[0].token == 9);
  CHECK(all.results[1].token == 7);
}

TEST_CASE("routed experts: an output has them beside prompt and answers", "[routed]") {
  StoreJob job;
  job.routed = true;
  job.answer_and_seal(3, 20);  // and goes on
  CHECK(job.go(7) == job.num_rows - 17);
  const hdf5::File file = hdf5::File::open(job.job.output.path);
  const hdf5::Group results = file.group("results");
  std::vector<uint8_t> prompt, answers;
  std::vector<uint64_t> offsets{0};
  const size_t bytes = routed_of_answers().token_bytes();
  for (uint64_t row = 0; row < job.num_rows; ++row) {
    const RowResult want = job.answer(row);
    prompt.insert(prompt.end(), want.prompt_routed.begin(), want.prompt_routed.end());
    offsets.push_back(prompt.size() / bytes);
    answers.insert(answers.end(), want.routed.begin(), want.routed.end());
    for (const Answer& answer : want.more_answers)
      answers.insert(answers.end(), answer.routed.begin(), answer.routed.end());
  }
  const auto check = [&](const char* name, const std::vector<uint8_t>& want) {
    const hdf5::Dataset dataset = results.dataset(name);
    const auto got = dataset.read<uint16_t>(0, dataset.rows());
    REQUIRE(got.size() * sizeof(uint16_t) == want.size());
    CHECK(std::memcmp(got.data(), want.data(), want.size()) == 0);
  };
  check("prompt_routed_experts", prompt);
  check("routed_experts", answers);
  CHECK(results.dataset("routed_experts").rows() == results.dataset("tokens").rows());
  CHECK(results.dataset("prompt_routed_offsets").read<uint64_t>(0, job.num_rows + 1) == offsets);
  CHECK(results.dataset("routed_layers").read<int32_t>(0, 2) == std::vector<int32_t>{1, 3});
}

TEST_CASE("routed experts: an answer whose ids do not fit its tokens is damaged", "[routed]") {
  RowResult result = routed_answers_to(4);
  check_result(result);
  RowResult shorter = result;
  shorter.routed.pop_back();
  CHECK_THROWS_WITH(check_result(shorter), ContainsSubstring("bytes of routed experts for 4 tokens"));
  result.prompt_routed.pop_back();
  CHECK_THROWS_WITH(check_result(result), ContainsSubstring("routed experts for a prompt of 5 tokens"));
}

TEST_CASE("routed experts: a row that would have too many is refused, and a prompt alone is computed",
          "[routed]") {
  Preparer preparer(nullptr, nullptr, {.max_model_len = 40000, .routed_bytes = 384}, 100);
  const auto prepare = [&](int32_t n, int32_t max_tokens) {
    PromptRecord record{.row = 3};
    record.prompt_token_ids = std::vector<int32_t>{1, 2, 3};
    record.sampling.n = n;
    record.sampling.max_tokens = max_tokens;
    return preparer.prepare(std::move(record));
  };
  CHECK(std::holds_alternative<Sequence>(prepare(30, 40000)));
  const auto failed = prepare(40, 40000);
  REQUIRE(std::holds_alternative<RowResult>(failed));
  CHECK(std::get<RowResult>(failed).error ==
        "output.routed_experts: the prompt of 3 tokens and 40 answers of up to 39997 have 384 bytes a token, "
        "and a "
        "row may have 512 MiB: ask for fewer answers (n) or tokens (max_tokens)");
  CHECK(std::holds_alternative<Sequence>(prepare(1, 0)));
  Preparer plain(nullptr, nullptr, {.max_model_len = 40000}, 100);
  PromptRecord record{.row = 3};
  record.prompt_token_ids = std::vector<int32_t>{1};
  record.sampling.max_tokens = 0;
  CHECK(std::holds_alternative<RowResult>(plain.prepare(std::move(record))));
}
