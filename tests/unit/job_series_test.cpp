#include <nlohmann/json.hpp>
#include <numeric>

#include "engine/engine.h"
#include "moerun/error.h"
#include "report/page/marks.h"
#include "report/report.h"
#include "report/report_html.h"
#include "report/series_json.h"
#include "tests/catch.h"

using namespace moerun;
using Json = nlohmann::ordered_json;

namespace {

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// Two runs: 60 s with 100 output tokens/s, 30 s with 50.
JobSeries two_runs() {
  JobSeries series;
  series.begin_run(1000);
  series.add(JobSeries::output_tokens, 0, 60, 6000);
  series.add(JobSeries::running, 0, 60, 4 * 60);
  series.runs.back().end_s = 60;
  series.runs.back().ended = 1060;
  series.runs.back().answered = 12;
  series.begin_run(5000);
  series.add(JobSeries::output_tokens, 0, 30, 1500);
  series.runs.back().end_s = 90;
  return series;
}

}  // namespace

TEST_CASE("sums over time: amounts are spread over their time, and bins double when there is no room") {
  BinnedSums sums(2, 4, 1);
  CHECK(sums.num_bins() == 0);
  sums.add(0, 0.5, 2.5, 8);  // 4 a second
  CHECK(sums.column(0) == std::vector<double>{2, 4, 2});
  CHECK(sums.length_s(2) == 0.5);
  sums.add(1, 3, 3, 5);  // at once, where bins meet: it is not lost
  CHECK(sums.num_bins() == 3);
  CHECK(sum(sums.column(1)) == 5);
  sums.add(0, 4, 4.5, 1);  // behind the fourth bin
  CHECK(sums.bin_s() == 2);
  CHECK(sums.column(0) == std::vector<double>{6, 2, 1});
  CHECK(sum(sums.column(1)) == 5);
  sums.extend(1000);
  CHECK(sums.bin_s() == 256);
  CHECK(sums.column(0) == std::vector<double>{9, 0, 0, 0});
  CHECK(sums.length_s(3) == 1000 - 3 * 256);
}

TEST_CASE("sums over time lose nothing, whatever comes when") {
  BinnedSums sums(1, 128, 0.1);
  double total = 0, now = 0;
  for (int i = 1; i < 20000; ++i) {
    const double next = now + 1e-3 * (i % 977), amount = i % 31;
    sums.add(0, now, next, amount);
    total += amount;
    now = next;
  }
  CHECK(sum(sums.column(0)) == Approx(total).epsilon(1e-12));
  CHECK(sums.end_s() == now);
  CHECK((sums.num_bins() > 64 && sums.num_bins() <= 128));
}

TEST_CASE("a job's series goes on where the run before ended, by way of its JSON") {
  const JobSeries series = two_runs();
  REQUIRE(series.runs.size() == 2);
  CHECK(series.runs[1].begin_s == 60);
  CHECK(series.sums.end_s() == 90);
  const Json json = series_json(series);
  CHECK(json["output_tokens_per_s"][0] == 100);
  CHECK(json["output_tokens_per_s"].back() == 50);
  CHECK(json["running"][0] == 4);
  const JobSeries again = parse_series(json);
  CHECK(series_json(again) == json);
  CHECK(sum(again.sums.column(JobSeries::output_tokens)) == Approx(7500));
  CHECK(series.lately_per_s(JobSeries::output_tokens, 10) == Approx(50));
  CHECK(series.lately_per_s(JobSeries::output_tokens, 60) == Approx(75).epsilon(0.01));

  JobSeries many;
  for (int64_t i = 0; i < 200; ++i) many.begin_run(i), many.add(JobSeries::rows, 0, 1, 1);
  CHECK(many.runs.size() == JobSeries::kMostRuns);
  CHECK((many.runs.front().began == 0 && many.runs.back().began == 199));
}

TEST_CASE("a damaged series is told from one that counts") {
  const Json good = series_json(two_runs());
  const auto damaged = [&](const char* key, const Json& value) {
    Json json = good;
    json[key] = value;
    return json;
  };
  CHECK_NOTHROW(parse_series(good));
  for (const Json& json :
       {damaged("bin_s", 0), damaged("bin_s", -1), damaged("end_s", 1e300), damaged("end_s", 1),
        damaged("running", Json::array({1, 2})), damaged("running", Json::array()),
        damaged("rows_per_s", std::vector<double>(good["rows_per_s"].size(), -1))})
    CHECK_THROWS_AS(parse_series(json), Error);
  Json runs = good["runs"];
  runs[0]["end_s"] = 70;
  CHECK_THROWS_AS(parse_series(damaged("runs", runs)), Error);
  runs[0]["end_s"] = "70";
  CHECK_THROWS(parse_series(damaged("runs", runs)));
}

TEST_CASE("a rank's timeline holds what the counters say, and travels with its report") {
  EngineStats stats;
  StepTimeline timeline;
  CHECK_FALSE(timeline.due(0.05));
  CHECK(timeline.due(0.1));
  stats.forward_s = 6, stats.agree_s = 1, stats.plan_s = 0.5;
  timeline.sample(10, stats, {.all_to_all = 2});
  stats.forward_s = 12, stats.idle_s = 3;
  timeline.sample(20, stats, {.all_to_all = 2.5});
  RankReport report;
  report.timeline = timeline.sums();
  const BinnedSums sums = unpack_rank_report(pack(report)).timeline;
  const auto part = [&](TimePart of) { return sum(sums.column(static_cast<size_t>(of))); };
  CHECK(sums.end_s() == 20);
  CHECK(part(TimePart::model) == Approx(9.5));
  CHECK(part(TimePart::all_to_all) == Approx(2.5));
  CHECK(part(TimePart::tensor) == 0);
  CHECK(part(TimePart::agreement) == Approx(1));
  CHECK(part(TimePart::idle) == Approx(3));
  CHECK(part(TimePart::plan) == Approx(0.5));
}

TEST_CASE("axes end above what they show, with a handful of round labels") {
  for (double most = 0.003; most < 1e13; most *= 1.37) {
    const Axis axis = axis_up_to(most);
    CHECK(axis.end() >= most);
    CHECK((axis.ticks.size() >= 2 && axis.ticks.size() <= 5));
    CHECK(axis.ticks[axis.ticks.size() - 2] < most);
  }
  for (double end_s = 0.3; end_s < 1e8; end_s *= 1.31) {
    const Labels labels = time_labels(end_s);
    CHECK((labels.size() >= 3 && labels.size() <= 9));
    CHECK(labels.back().first <= 1.000001);
  }
  CHECK(time_labels(36000)[1].second == "2 h");
  CHECK(time_labels(90)[1].second == "15 s");
  CHECK(index_labels(512, 12).size() == 11);
  CHECK(short_number(1500) == "1.5k");
  CHECK(number_text(1234567.4) == "1,234,567");
  CHECK(number_text(3.14159) == "3.14");
  CHECK(percent_text(0.0004) == "<0.1%");
  CHECK(percent_text(0.99951) == "100%");
}

TEST_CASE("lists of numbers are one line in a report, and numbers are short") {
  const Json json{{"a", Json::array({1, 2.5})},
                  {"b", {{"c", Json::array({Json::array({1}), Json::array()})}}},
                  {"d", Json::object()}};
  const std::string text = dump_with_lists(json);
  CHECK(text ==
        "{\n  \"a\": [1,2.5],\n  \"b\": {\n    \"c\": [\n      [1],\n      []\n    ]\n  },\n  \"d\": {}\n}");
  CHECK(Json::parse(text) == json);
  CHECK(short_numbers({1280.0, 0.123456, 99999.4}).dump() == "[1280,0.1235,100000]");
}

TEST_CASE("the page says where an earlier run ended, and folds many ranks") {
  Job job;
  job.output.path = "out.h5";
  JobReport report{.job = &job, .layout = "l", .num_experts = 0};
  report.outcome.progress.series = two_runs();
  report.outcome.progress.num_blocks = 100;
  for (int i = 0; i < 40; ++i) {
    RankReport rank{.rank = i, .host = "h", .device = "CPU"};
    rank.engine.forward_s = 5;
    StepTimeline timeline;
    timeline.sample(10 + 0.1 * i, rank.engine, {});  // bins of two lengths
    rank.timeline = timeline.sums();
    report.ranks.push_back(rank);
  }
  const std::string page = report_html(report);
  CHECK(page.find("a run of the job ended there") != std::string::npos);
  CHECK(page.find("with 12 rows answered (<span class=\"nw\">1970-01-01T00:17:40Z</span>, and on <span "
                  "class=\"nw\">1970-01-01T01:23:20Z") != std::string::npos);
  CHECK(page.find("<path class=\"mark\" d=\"M666.67 0V100\"/>") != std::string::npos);
  CHECK(page.find("<td>0–2</td>") != std::string::npos);
  CHECK(page.find("<td>39–39</td>") == std::string::npos);
  CHECK(page.find("<td>39</td>") != std::string::npos);
  CHECK(page.find("All 40 ranks") != std::string::npos);
}
