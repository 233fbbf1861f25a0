#include "report/series_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "io/json_number.h"
#include "moerun/error.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

/// The columns by their names. All are kept as sums and written a second.
constexpr std::pair<const char*, JobSeries::Column> kColumns[] = {
    {"prompt_tokens_per_s", JobSeries::prompt_tokens},
    {"output_tokens_per_s", JobSeries::output_tokens},
    {"rows_per_s", JobSeries::rows},
    {"running", JobSeries::running},
    {"waiting", JobSeries::waiting},
    {"blocks_used", JobSeries::blocks_used}};

bool numbers_alone(const Json& json) {
  return json.is_array() && !json.empty() &&
         std::all_of(json.begin(), json.end(), [](const Json& value) { return value.is_number(); });
}

void write(const Json& json, size_t indent, std::string& out) {
  if (!json.is_structured() || json.empty() || numbers_alone(json)) {
    out += json.dump();
    return;
  }
  out += json.is_object() ? "{" : "[";
  const char* separator = "\n";
  for (const auto& item : json.items()) {
    out += separator + std::string(indent + 2, ' ');
    if (json.is_object()) out += Json(item.key()).dump() + ": ";
    write(item.value(), indent + 2, out);
    separator = ",\n";
  }
  out += "\n" + std::string(indent, ' ') + (json.is_object() ? "}" : "]");
}

}  // namespace

Json series_json(const JobSeries& series) {
  const BinnedSums& sums = series.sums;
  Json json{{"bin_s", sums.bin_s()}, {"end_s", sums.end_s()}, {"runs", Json::array()}};
  for (const JobSeries::Run& run : series.runs)
    json["runs"].push_back({{"begin_s", run.begin_s},
                            {"end_s", run.end_s},
                            {"began", run.began},
                            {"ended", run.ended},
                            {"answered", run.answered}});
  for (const auto& [name, column] : kColumns) {
    std::vector<double> values = sums.column(column);
    for (size_t bin = 0; bin < values.size(); ++bin)
      values[bin] = sums.length_s(bin) > 0 ? values[bin] / sums.length_s(bin) : 0;
    json[name] = short_numbers(values);
  }
  return json;
}

JobSeries parse_series(const Json& json) {
  const auto bin_s = json.at("bin_s").get<double>(), end_s = json.at("end_s").get<double>();
  std::vector<std::vector<double>> columns(JobSeries::num_columns);
  for (const auto& [name, column] : kColumns) {
    std::vector<double>& values = columns[column] = json.at(name).get<std::vector<double>>();
    for (size_t bin = 0; bin < values.size(); ++bin)
      values[bin] *= std::min(bin_s, end_s - bin_s * static_cast<double>(bin));
  }
  JobSeries series;
  series.sums = BinnedSums(std::move(columns), JobSeries::kMostBins, bin_s, end_s);
  for (const Json& run : json.at("runs"))
    series.runs.push_back({.begin_s = run.at("begin_s").get<double>(),
                           .end_s = run.at("end_s").get<double>(),
                           .began = whole_number<int64_t>(run, "began"),
                           .ended = whole_number<int64_t>(run, "ended"),
                           .answered = whole_number<uint64_t>(run, "answered")});
  for (double before = 0; const JobSeries::Run& run : series.runs) {
    if (!(run.begin_s >= before && run.end_s >= run.begin_s && run.end_s <= end_s * (1 + 1e-9)))
      throw Error("the runs of a series over time do not follow one another");
    before = run.end_s;
  }
  if (series.runs.size() > JobSeries::kMostRuns) throw Error("a series over time has too many runs");
  return series;
}

Json short_numbers(const std::vector<double>& values) {
  Json numbers = Json::array();
  for (const double value : values) {
    const double rounded = std::strtod(fmt::format("{:.4g}", value).c_str(), nullptr);
    // 1280 rather than 1280.0: a third of what such lists hold is whole.
    if (rounded == std::floor(rounded) && std::abs(rounded) < 1e15)
      numbers.push_back(static_cast<int64_t>(rounded));
    else
      numbers.push_back(rounded);
  }
  return numbers;
}

std::string dump_with_lists(const Json& json) {
  std::string out;
  write(json, 0, out);
  return out;
}

}  // namespace moerun
