#include "comm/measured_exchange.h"

#include <fstream>

#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/temporary_directory.h"

using namespace moerun;

namespace {

const std::string kHead = R"({"exchange": "p2p", "device": "H100", "date": "2026-11-25T03:00:00Z", )",
                  kShape =
                      R"("ranks_share_a_gpu": false, "hidden": 64, "element_bytes": 2, "num_experts": 16, )"
                      R"("num_experts_per_tok": 4, "graph": true, )",
                  kRow = kHead + R"("ranks": 2, )" + kShape + R"("tokens": 8, "us": 12.5})";

/// `row` with one part replaced, which must be there.
std::string with(std::string row, const std::string& part, const std::string& other) {
  const size_t at = row.find(part);
  REQUIRE(at != std::string::npos);
  return row.replace(at, part.size(), other);
}

std::vector<MeasuredExchange> read(const std::string& text) {
  const TemporaryDirectory folder;
  std::ofstream(folder / "measured.json") << text;
  return read_measured_exchange(folder / "measured.json");
}

const ExchangeLoad kLoad{.ranks = 2,
                         .tokens = 100,
                         .hidden_size = 64,
                         .element_bytes = 2,
                         .num_experts = 16,
                         .num_experts_per_tok = 4};

}  // namespace

TEST_CASE("measurements of the exchange, an object a line or in eight-gpus.sh's report",
          "[measured_exchange]") {
  const std::string nccl = with(kRow, "p2p", "nccl"),
                    by_counts = with(nccl, "\"graph\": true", "\"graph\": false");
  for (const std::string& text :
       {kRow + "\n" + nccl + "\n" + by_counts + "\n", R"({"host": "a", "parts": {"exchange": {"rows": [)" +
                                                          kRow + ",\n" + nccl + "," + by_counts + "]}}}"}) {
    const std::vector<MeasuredExchange> rows = read(text);
    REQUIRE(rows.size() == 3);
    CHECK(rows[0].exchange == "p2p");
    CHECK(rows[0].device == "H100");
    CHECK(rows[0].date == "2026-11-25T03:00:00Z");
    CHECK(rows[0].load.tokens == 8);
    CHECK(rows[0].us == 12.5);
    ExchangeLoad load = kLoad;
    load.tokens = 8;
    CHECK(rows[0].cost().bytes() == cost_once_a_rank(load).bytes());
    CHECK(rows[1].cost().bytes() == cost_all_gather(load).bytes());
    CHECK(rows[2].cost().bytes() == cost_once_a_rank(load).bytes());
    CHECK(cost_once_a_rank(load).bytes() < cost_all_gather(load).bytes());
  }
}

TEST_CASE("a file that holds no measurement is refused, with the place", "[measured_exchange]") {
  const auto fault = [](const std::string& text, const std::string& said) {
    INFO(text);
    CHECK_THROWS_AS(read(text), BadInput);
    CHECK_THROWS_WITH(read(text), ContainsSubstring(said));
  };
  fault("", "no exchange was measured");
  fault(std::string(200'000, '['), "measured.json:1: no JSON object");
  fault(std::string(200'000, '[') + std::string(200'000, ']'), "measured.json:1: no JSON object");
  std::string nested = "1";
  for (int i = 0; i < 40; ++i) nested = "{\"parts\": {\"exchange\": [" + nested + "]}}";
  fault(nested, "measured.json:1: no JSON object");
  fault("tokens us\n", "measured.json:1: no JSON object");
  fault(kRow + "\n[1]\n", "measured.json:2: no JSON object");
  fault(with(kRow, "\"hidden\": 64, ", ""), "measured.json:1: no \"hidden\"");
  for (const char* tokens : {"0", "-1", "1.5", "\"8\"", "4294967296"})
    fault(with(kRow, "\"tokens\": 8", std::string("\"tokens\": ") + tokens), "\"tokens\" is no whole number");
  for (const char* us : {"0", "-3", "null"}) fault(with(kRow, "12.5", us), "\"us\" is no time");
  fault(with(kRow, "\"H100\"", "3"), "\"device\" is no text");
  fault(with(kRow, "_gpu\": false", "_gpu\": 0"), "\"ranks_share_a_gpu\" is neither");
  fault(R"({"parts": {"exchange": {"status": "not run"}}})", "no exchange was measured");
  fault(R"({"parts": 3})", "no exchange was measured");
  fault(R"({"parts": {"exchange": {"rows": {}}}})", "parts.exchange.rows is no list");
  fault(R"({"parts": {"exchange": {"rows": [)" + kRow + ", 7]}}}", "parts.exchange.rows[1]: no JSON object");
  CHECK_THROWS_WITH(read_measured_exchange("/nowhere/m.json"), "/nowhere/m.json: cannot be read");
}

TEST_CASE("measurements for a job: its ranks, shapes and exchange, whatever the tokens",
          "[measured_exchange]") {
  const std::string more = with(with(kRow, "\"tokens\": 8", "\"tokens\": 64"), "12.5", "20"),
                    nccl = with(kRow, "p2p", "nccl"), eight = with(kRow, "\"ranks\": 2", "\"ranks\": 8"),
                    shared = with(kRow, "_gpu\": false", "_gpu\": true");
  const std::vector<MeasuredExchange> measured =
      read(more + "\n" + kRow + "\n" + nccl + "\n" + eight + "\n" + shared);
  const std::vector<MeasuredExchange> every = measured_for(measured, kLoad, "");
  REQUIRE(every.size() == 3);
  CHECK(every[0].exchange == "nccl");
  CHECK(every[1].load.tokens == 8);
  CHECK(every[2].load.tokens == 64);
  CHECK(measured_for(measured, kLoad, "p2p").size() == 2);
  CHECK_THROWS_WITH(measured_for(measured, kLoad, "mpi"),
                    ContainsSubstring("nothing was measured for mpi on 2 ranks, hidden 64 of 2 bytes") &&
                        ContainsSubstring("p2p on 8 ranks") &&
                        ContainsSubstring("p2p on 2 ranks that share a GPU"));
  for (int64_t ExchangeLoad::*const size : {&ExchangeLoad::hidden_size, &ExchangeLoad::element_bytes,
                                            &ExchangeLoad::num_experts, &ExchangeLoad::num_experts_per_tok}) {
    ExchangeLoad other = kLoad;
    other.*size *= 2;
    CHECK_THROWS_AS(measured_for(measured, other, ""), BadInput);
  }
}
