#include "report/report.h"

#include <nlohmann/json.hpp>

#include "moerun/file_names.h"
#include "report/expert_load.h"
#include "report/progress_line.h"
#include "report/report_html.h"
#include "report/times.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

/// Two engines of two ranks; two layers of four experts, two of them on each rank.
JobReport sample(const Job& job) {
  JobReport report{.job = &job, .layout = "tensor 1 <of> 4 & more", .num_experts = 4, .total_s = 20};
  report.outcome.complete = true;
  JobProgress& progress = report.outcome.progress;
  progress.num_rows = progress.num_answered = progress.answered_now = 40;
  progress.prompt_tokens = 300;
  progress.output_tokens = 500;
  progress.seconds = 10;
  progress.handed_out_s = 7;
  progress.first_answer_s = 3;
  progress.tokens_first_answer = 100;
  progress.tokens_handed_out = 700;
  report.outcome.merge_s = 1.5;
  const std::vector<std::vector<uint64_t>> tokens{{10, 20, 0, 0, 5, 5, 0, 0},
                                                  {0, 0, 30, 0, 0, 0, 80, 10},
                                                  {1, 1, 0, 0, 1, 1, 0, 0},
                                                  {0, 0, 1, 1, 0, 0, 1, 1}};
  for (int i = 0; i < 4; ++i) {
    RankReport rank{.rank = i, .replica = i / 2, .host = "n", .device = "CPU", .pid = 100 + i};
    rank.peak_host_bytes = 1000U + static_cast<unsigned>(i);
    rank.expert_tokens = tokens[static_cast<size_t>(i)];
    rank.load_s = 1 + i;
    rank.all_to_all_s = 0.5;
    rank.tensor_s = 0.25;
    rank.engine.forward_s = 5;
    rank.engine.agree_s = 1;
    rank.engine.first_step_s = i == 2 ? 2.0 : 0.25;
    rank.engine.num_blocks = 10;
    rank.engine.max_blocks_used = 4;
    report.ranks.push_back(rank);
  }
  return report;
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("a job's time is warm-up, steady and tail, which together are the time that rows were served") {
  const Job job;
  JobReport report = sample(job);
  JobTimes times = job_times(report);
  CHECK(times.load == 4);
  CHECK(times.warm_up == 2);
  CHECK(times.steady == 5);
  CHECK(times.tail == 3);
  CHECK(times.merge == 1.5);
  REQUIRE(report.outcome.progress.steady_tokens_per_s());
  CHECK(*report.outcome.progress.steady_tokens_per_s() == 150);

  report.outcome.progress.handed_out_s = 1;  // a small input: all was handed out before the first step ended
  times = job_times(report);
  CHECK(times.warm_up == 2);
  CHECK(times.steady == 0);
  CHECK(times.tail == 8);

  report.outcome.progress.handed_out_s = 0;  // stopped before that
  times = job_times(report);
  CHECK(times.steady == 8);
  CHECK(times.tail == 0);

  report.outcome.progress.seconds = 0.125;  // nothing was left to do
  times = job_times(report);
  CHECK(times.warm_up == 0.125);
  CHECK(times.steady + times.tail == 0);
}

TEST_CASE("a steady rate is given over a fifth of the job and two answers' length, else none") {
  const Job job;
  JobReport report = sample(job);
  JobProgress& progress = report.outcome.progress;
  CHECK(report_text(report).find("steady      150 tokens/s between") != std::string::npos);
  CHECK(report_html(report).find("150 tokens/s between the first answer and the last hand-out") !=
        std::string::npos);

  SECTION("a span that is too short a part of the job") { progress.first_answer_s = 5.5; }
  SECTION("answers that take more than half of it") { progress.sequence_seconds = 40 * 2.5; }
  SECTION("no answer before the last hand-out") { progress.first_answer_s = 0; }
  SECTION("a first answer after the last hand-out") { progress.first_answer_s = 8; }
  CHECK_FALSE(progress.steady_tokens_per_s());
  CHECK(nlohmann::json::parse(report_json(report))["throughput"]["steady_tokens_per_s"].is_null());
  CHECK(report_text(report).find("steady      no rate: too short") != std::string::npos);
  CHECK(report_html(report).find("no rate: too short") != std::string::npos);
}

TEST_CASE("the time that is left is known from tokens before a row is answered") {
  JobProgress progress{
      .num_rows = 1000, .output_tokens = 6400, .handed_out = 64, .most_output_tokens = 64 * 500};
  progress.seconds = 2;
  REQUIRE(progress.seconds_left());
  CHECK(*progress.seconds_left() == Approx((1000 * 500 - 6400) / 3200.0));  // at most
  CHECK(progress_text(progress).ends_with("at most 2:34 left"));
  // One short answer says little: the others have drawn 6,300 and go on.
  progress.answered_now = progress.num_answered = 1;
  CHECK(*progress.seconds_left() == Approx((1000 * 500 - 6400) / 3200.0));
  // 32 ended after 100 in the mean, of 6,400 drawn: no more than 200 an answer.
  progress.answered_now = progress.num_answered = 32;
  CHECK(*progress.seconds_left() == Approx((1000 * 200 - 6400) / 3200.0));

  progress = {.num_rows = 100, .num_answered = 25, .answered_now = 25, .handed_out = 40};  // scored alone
  progress.seconds = 5;
  CHECK(*progress.seconds_left() == Approx(15));
  progress.answered_now = progress.num_answered = 0;
  CHECK_FALSE(progress.seconds_left());
}

TEST_CASE("expert load is compared within an engine, over all layers and by layer") {
  const Job job;
  const ExpertLoad load = expert_load(sample(job), LoadPeriod::all);
  CHECK(load.of_rank == std::vector<uint64_t>{40, 120, 4, 4});
  CHECK(load.of_expert == std::vector<uint64_t>{17, 27, 112, 12});
  CHECK(load.max_over_mean == Approx(120 / 80.0));
  REQUIRE(load.max_over_mean_of_layer.size() == 2);
  CHECK(load.max_over_mean_of_layer[0] == Approx(1));
  CHECK(load.max_over_mean_of_layer[1] == Approx(90 / 50.0));
  CHECK(load.worst_layer() == Approx(1.8));
}

TEST_CASE("redundant experts: the load before and after they were placed, and where copies went") {
  Job job;
  job.parallel.redundant_experts = 2;
  JobReport report = sample(job);
  CHECK(nlohmann::json::parse(report_json(report))["redundant_experts"].dump() ==
        R"({"placements":0,"slots_a_layer":2})");
  CHECK(report_text(report).find("no copies were placed: too few tokens were routed") != std::string::npos);

  const std::vector<std::vector<uint64_t>> before{{5, 5, 0, 0, 5, 5, 0, 0},
                                                  {0, 0, 30, 0, 0, 0, 0, 0},
                                                  {1, 0, 0, 0, 1, 0, 0, 0},
                                                  {0, 0, 1, 0, 0, 0, 1, 0}};
  for (size_t i = 0; i < 4; ++i)
    report.ranks[i].placement = {.placements = i < 2 ? 3 : 2,
                                 .loads = 1,
                                 .counted_tokens = i < 2 ? 5000 : 4100,
                                 .expert_tokens = before[i],
                                 .seconds = 0.25 * static_cast<double>(i)};
  report.ranks[3].placement.copies = {{.layer = 1, .expert = 0, .share = 0.25}};
  for (RankReport& rank : report.ranks) rank = unpack_rank_report(pack(rank));
  const auto json = nlohmann::json::parse(report_json(report))["redundant_experts"];
  CHECK(json["placements"] == 2);
  CHECK(json["tokens_before"] == 4100);
  CHECK(json["experts_loaded"] == 4);
  CHECK(json["seconds"] == 0.75);
  CHECK(json["before"]["tokens_of_rank"] == nlohmann::json{20, 30, 2, 2});
  CHECK(json["after"]["tokens_of_rank"] == nlohmann::json{20, 90, 2, 2});
  CHECK(json["before"]["max_over_mean_of_ranks"] == Approx(30 / 25.0));
  CHECK(json["before"]["max_over_mean_of_ranks_by_layer"][1] == Approx(2));
  CHECK(json["after"]["max_over_mean_of_ranks"] == Approx(90 / 55.0));
  CHECK(json["after"]["max_over_mean_of_ranks_by_layer"][0] == Approx(20 / 10.0));
  REQUIRE(json["copies"].size() == 1);
  CHECK(json["copies"][0].dump() == R"({"expert":0,"layer":1,"rank":3,"share":0.25})");
  const std::string sentence =
      "busiest rank 1.20 × the mean in the first 4,100 tokens, 1.64 × once copies were placed; in the worst "
      "layer 2.00 × and 2.00 ×";
  CHECK(report_text(report).find(sentence) != std::string::npos);
  CHECK(report_html(report).find(sentence) != std::string::npos);
}

TEST_CASE("what a rank measured travels whole") {
  const Job job;
  const JobReport report = sample(job);
  JobReport received = report;
  for (RankReport& rank : received.ranks) rank = unpack_rank_report(pack(rank));
  CHECK(report_json(received) == report_json(report));
  CHECK(received.ranks[2].engine.first_step_s == 2);
  CHECK(received.ranks[3].peak_host_bytes == 1003);
}

TEST_CASE("the report as JSON and as text says rates, times, step time and expert load") {
  const Job job;
  const JobReport report = sample(job);
  CHECK(report_json(report).starts_with(kReportJsonBegin));
  const auto json = nlohmann::json::parse(report_json(report));
  CHECK(json["throughput"]["requests_per_s"] == 4);
  CHECK(json["throughput"]["total_tokens_per_s"] == 80);
  CHECK(json["throughput"]["output_tokens_per_s_per_rank"] == 12.5);
  CHECK(json["throughput"]["total_tokens_per_s_per_rank"] == 20);
  CHECK(json["time_s"]["warm_up"] == 2);
  CHECK(json["step_time_s"]["compute"] == 17);
  CHECK(json["step_time_s"]["all_to_all"] == 2);
  CHECK(json["step_time_s"]["tensor_parallel"] == 1);
  CHECK(json["step_time_s"]["waiting"] == 4);
  CHECK(json["expert_load"]["max_over_mean_of_ranks_by_layer"].size() == 2);
  CHECK(json["ranks"][1]["key_value"]["most_used"] == 4);
  CHECK(json["ranks"][1]["peak_host_bytes"] == 1001);

  const std::string text = report_text(report);
  CHECK(text.find("4.00 requests/s, 30 prompt + 50 output = 80 tokens/s; a rank 12 output, 20 in all") !=
        std::string::npos);
  CHECK(text.find("load 4.0 s, warm-up 2.0 s, steady 5.0 s, tail 3.0 s, merge 1.5 s") != std::string::npos);
  CHECK(text.find("71% compute, 8% all-to-all (), 4% tensor-parallel exchange, 17% waiting") !=
        std::string::npos);
  CHECK(text.find("busiest rank 1.50 × the mean, in the worst layer 1.80 ×") != std::string::npos);
}

TEST_CASE("a job that is complete says where the answers are, one that was stopped does not") {
  Job job;
  job.output.path = "out/a.h5";
  JobReport report = sample(job);
  CHECK(report_text(report).find("  answers     out/a.h5\n") != std::string::npos);
  job.output.jsonl = "out/a.jsonl";
  CHECK(report_text(report).find("  answers     out/a.h5 and out/a.jsonl\n") != std::string::npos);
  report.outcome.complete = false;
  CHECK(report_text(report).find("answers     ") == std::string::npos);
}

TEST_CASE("the report says what the coordinator took and sent", "[report]") {
  Job job;
  JobReport report = sample(job);
  report.outcome.processor_s = 0.25;
  report.outcome.traffic = {
      .messages_sent = 3, .bytes_sent = 400, .messages_received = 5, .bytes_received = 600};
  const auto json = nlohmann::json::parse(report_json(report))["coordinator"];
  CHECK(json["gpu_processes"] == 0);
  CHECK(json["processor_s"] == 0.25);
  CHECK(json["messages_sent"] == 3);
  CHECK(json["bytes_sent"] == 400);
  CHECK(json["messages_received"] == 5);
  CHECK(json["bytes_received"] == 600);
}

TEST_CASE("the report as a page has a figure for each part, escaped text and no script") {
  Job job;
  job.output.path = "out/<b>&\"'.h5";
  job.given.names = {"output.path"};
  JobReport report = sample(job);
  const std::string page = report_html(report);
  CHECK(page.starts_with(kReportHtmlBegin));
  CHECK(page.find("<title>out/&lt;b&gt;&amp;&quot;&#39;.h5</title>") != std::string::npos);
  CHECK(page.find("tensor 1 &lt;of&gt; 4 &amp; more") != std::string::npos);
  CHECK(page.find("<script") == std::string::npos);
  CHECK(count(page, "<div") == count(page, "</div>"));
  CHECK(count(page, "<svg ") == count(page, "</svg>"));
  // Nothing was measured over time: the heat map with what is beside and below it, and the ranks' tokens.
  CHECK(count(page, "<svg ") == 4);
  CHECK(page.find("Over time") == std::string::npos);
  CHECK(page.find("NVML") == std::string::npos);
  CHECK(page.find("<tr class=\"given\"><td>path</td><td><code>out/&lt;b&gt;&amp;&quot;&#39;.h5</code>") !=
        std::string::npos);
  CHECK(page.find("<tr class=\"standard\"><td>tensor</td><td><code>1</code>") != std::string::npos);

  report.ranks[0].device_uuid = "GPU-0";
  report.ranks[0].processes = {{.pid = 101, .bytes = 520 << 20}};
  const std::string on_gpus = report_html(report);
  CHECK(on_gpus.find("<td class=\"n\">101</td><td class=\"n\">520 MiB</td>") != std::string::npos);
  CHECK(report_text(report).find("GPU-0: pid 101, 520 MiB") != std::string::npos);
  report.ranks[0].processes[0].bytes = -1;
  CHECK(report_text(report).find("GPU-0: pid 101, unknown") != std::string::npos);
  CHECK(on_gpus.find("also carries the process of rank 1") != std::string::npos);
}

TEST_CASE("the heat map has a line for neighbours of one level, each in its layer") {
  const Job job;
  const std::string page = report_html(sample(job));
  const ExpertLoad load = expert_load(sample(job), LoadPeriod::all);
  REQUIRE(load.of_layer == std::vector<std::vector<uint64_t>>{{11, 21, 31, 1}, {6, 6, 81, 11}});
  // Layer 0 of 16 a share: ½ to 1, 1 to 1½, 1½ to 2, below ¼; layer 1 of 26: below ¼ twice, 2 to 4, ¼ to ½.
  CHECK(page.find("<path class=\"h3\" d=\"m0 0h1\"/>") != std::string::npos);
  CHECK(page.find("<path class=\"h4\" d=\"m1 0h1\"/>") != std::string::npos);
  CHECK(page.find("<path class=\"h5\" d=\"m2 0h1\"/>") != std::string::npos);
  CHECK(page.find("<path class=\"h1\" d=\"m3 0h1m-4 1h2\"/>") != std::string::npos);
  CHECK(page.find("<path class=\"h6\" d=\"m2 1h1\"/>") != std::string::npos);
  CHECK(page.find("<path class=\"h2\" d=\"m3 1h1\"/>") != std::string::npos);
}

TEST_CASE("a line of progress says how many rows are done, tokens a second and the time that is left") {
  JobProgress progress{.num_rows = 1234567, .num_answered = 1000, .running = 64};
  progress.answered_now = 200;  // the others are an earlier run's
  progress.prompt_tokens = 50000;
  progress.output_tokens = 20000;
  progress.handed_out = 264;
  progress.most_output_tokens = 264 * 150;
  progress.seconds = 10;
  CHECK(progress_text(progress) ==
        "1,000/1,234,567 rows  20,000 output tokens (2,000/s)  50,000 prompt tokens (5,000/s)  64 running  "
        "17:07:58 left");
  progress.row_errors = 3;
  progress.num_answered = progress.num_rows;
  CHECK(
      progress_text(progress) ==
      "1,234,567/1,234,567 rows  20,000 output tokens (2,000/s)  50,000 prompt tokens (5,000/s)  64 running  "
      "3 errors");
  progress = {.num_rows = 5};  // nothing yet: no rate, no guess
  CHECK(progress_text(progress) == "0/5 rows  0 output tokens (0/s)  0 prompt tokens (0/s)  0 running");
  CHECK(clock_text(59.6) == "1:00");
  CHECK(clock_text(3599.4) == "59:59");
  CHECK(clock_text(3661) == "1:01:01");
}
