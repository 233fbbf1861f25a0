#include "comm/measured_exchange.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>

#include "moerun/error.h"

namespace moerun {

namespace {

using Json = nlohmann::json;

const Json& field(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end())
    throw BadInput(fmt::format("no \"{}\": not from this version's exchange_bench?", key));
  return *found;
}

std::string text(const Json& row, const char* key) {
  const Json& value = field(row, key);
  if (!value.is_string()) throw BadInput(fmt::format("\"{}\" is no text", key));
  return value.get<std::string>();
}

bool flag(const Json& row, const char* key) {
  const Json& value = field(row, key);
  if (!value.is_boolean()) throw BadInput(fmt::format("\"{}\" is neither true nor false", key));
  return value.get<bool>();
}

int count(const Json& row, const char* key) {
  const Json& value = field(row, key);
  if (!value.is_number_unsigned() || value.get<uint64_t>() < 1 ||
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int>::max()))
    throw BadInput(fmt::format("\"{}\" is no whole number from 1 on", key));
  return value.get<int>();
}

MeasuredExchange measured_of(const Json& row) {
  if (!row.is_object()) throw BadInput("no JSON object");
  MeasuredExchange out{.exchange = text(row, "exchange"),
                       .device = text(row, "device"),
                       .date = text(row, "date"),
                       .load = {.ranks = count(row, "ranks"),
                                .tokens = static_cast<double>(count(row, "tokens")),
                                .hidden_size = count(row, "hidden"),
                                .element_bytes = count(row, "element_bytes"),
                                .num_experts = count(row, "num_experts"),
                                .num_experts_per_tok = count(row, "num_experts_per_tok")},
                       .shares_gpu = flag(row, "ranks_share_a_gpu"),
                       // What nccl sends by counts waits on the host, and is in no graph.
                       .all_gather = text(row, "exchange") == "nccl" && flag(row, "graph")};
  const Json& us = field(row, "us");
  if (!us.is_number() || us.get<double>() <= 0) throw BadInput("\"us\" is no time");
  out.us = us.get<double>();
  return out;
}

constexpr size_t kMostBytes = size_t{64} << 20;
constexpr int kMostDepth = 32;  // of lists and objects in one another

/// A text as JSON; discarded when it is none, or is nested deeper than any measurement.
Json parsed(const std::string& text) {
  bool too_deep = false;
  const auto keep = [&](int depth, Json::parse_event_t, const Json&) {
    return !(too_deep |= depth > kMostDepth);
  };
  Json out = Json::parse(text, keep, false);
  return too_deep ? Json(Json::value_t::discarded) : out;
}

/// A row of the file, or BadInput that names its place.
MeasuredExchange measured_at(const std::string& place, const Json& row) {
  try {
    return measured_of(row);
  } catch (const BadInput& fault) {
    throw BadInput(fmt::format("{}: {}", place, fault.what()));
  }
}

std::string described(const MeasuredExchange& row) {
  return fmt::format("{} on {} ranks{}, hidden {} of {} bytes an element, {} experts, {} a token",
                     row.exchange, row.load.ranks, row.shares_gpu ? " that share a GPU" : "",
                     row.load.hidden_size, row.load.element_bytes, row.load.num_experts,
                     row.load.num_experts_per_tok);
}

}  // namespace

std::vector<MeasuredExchange> read_measured_exchange(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadInput(fmt::format("{}: cannot be read", path));
  std::string all(kMostBytes + 1, '\0');
  file.read(all.data(), static_cast<std::streamsize>(all.size()));
  all.resize(static_cast<size_t>(file.gcount()));
  if (all.size() > kMostBytes) throw BadInput(fmt::format("{}: more than {} MiB", path, kMostBytes >> 20));
  std::vector<MeasuredExchange> out;
  // eight-gpus.sh writes one object, exchange_bench one a line.
  const Json whole = parsed(all);
  if (whole.is_object() && whole.contains("parts")) {
    const auto at = "/parts/exchange/rows"_json_pointer;
    const Json rows = whole.contains(at) ? whole.at(at) : Json::array();
    if (!rows.is_array()) throw BadInput(fmt::format("{}: parts.exchange.rows is no list", path));
    for (size_t i = 0; i < rows.size(); ++i)
      out.push_back(measured_at(fmt::format("{}: parts.exchange.rows[{}]", path, i), rows[i]));
  } else {
    std::istringstream lines(all);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number)
      out.push_back(measured_at(fmt::format("{}:{}", path, number), parsed(line)));
  }
  if (out.empty()) throw BadInput(fmt::format("{}: no exchange was measured", path));
  return out;
}

std::vector<MeasuredExchange> measured_for(const std::vector<MeasuredExchange>& measured,
                                           const ExchangeLoad& load, const std::string& exchange) {
  std::vector<MeasuredExchange> out;
  std::set<std::string> others;
  const auto shape = [](const ExchangeLoad& of) {
    return std::tuple(of.ranks, of.hidden_size, of.element_bytes, of.num_experts, of.num_experts_per_tok);
  };
  for (const MeasuredExchange& row : measured) {
    if (shape(row.load) == shape(load) && !row.shares_gpu && (exchange.empty() || row.exchange == exchange))
      out.push_back(row);
    else
      others.insert(described(row));
  }
  if (out.empty())
    throw BadInput(
        fmt::format("nothing was measured for {}; what was: {}",
                    described({.exchange = exchange.empty() ? "any exchange" : exchange, .load = load}),
                    fmt::join(others, "; ")));
  std::stable_sort(out.begin(), out.end(), [](const MeasuredExchange& a, const MeasuredExchange& b) {
    return std::tie(a.exchange, a.device, a.date, a.load.tokens) <
           std::tie(b.exchange, b.device, b.date, b.load.tokens);
  });
  return out;
}

}  // namespace moerun
