// Writes the pages of jobs that no test can run: large_report FOLDER makes FOLDER/large.html (94 layers of
// 512 experts on 512 ranks, ten hours in three runs) and FOLDER/hostile.html (names that try to be markup).
#include <cmath>
#include <fstream>
#include <iostream>
#include <random>

#include "report/report.h"
#include "report/report_html.h"

using namespace moerun;

namespace {

constexpr double kHours = 10 * 3600.0;

/// Answers of varying length in three runs; the rate falls at each end and begin.
JobSeries series_of(int64_t num_blocks) {
  JobSeries series;
  std::mt19937 random(7);
  std::normal_distribution<double> noise(1, 0.06);
  int64_t now = 1'790'000'000;
  for (const double part : {0.3, 0.45, 0.25}) {
    series.begin_run(now);
    const double length = kHours * part;
    for (double second = 0; second < length; second += 5) {
      const double full = std::min({1.0, (second + 30) / 400, (length - second) / 700}),
                   bump = 1 + 0.1 * std::sin(second / 900);
      series.add(JobSeries::output_tokens, second, second + 5, 5 * 310'000 * full * bump * noise(random));
      series.add(JobSeries::prompt_tokens, second, second + 5,
                 5 * 920'000 * std::max(0.0, full - 0.4) * noise(random) * noise(random));
      series.add(JobSeries::rows, second, second + 5, 5 * 400 * full);
      series.add(JobSeries::running, second, second + 5, 5 * 131'072 * full);
      series.add(JobSeries::waiting, second, second + 5, 5 * 22'000 * full * noise(random));
      series.add(JobSeries::blocks_used, second, second + 5,
                 5 * static_cast<double>(num_blocks) * 0.93 * full);
    }
    series.runs.back().end_s = series.sums.end_s();
    series.runs.back().ended = now + static_cast<int64_t>(length);
    series.runs.back().answered = static_cast<uint64_t>(400 * series.sums.end_s());
    now += static_cast<int64_t>(length) + 5400;
  }
  return series;
}

RankReport rank_of(int i, int layers, int experts, std::mt19937& random) {
  RankReport rank{.rank = i,
                  .host = "gpu-node-" + std::to_string(i / 8),
                  .device = "NVIDIA H200",
                  .device_uuid = "GPU-" + std::to_string(i),
                  .all_to_all = "p2p",
                  .all_to_all_why = "measured: 41 µs a layer, nccl 66 µs",
                  .pid = 4000 + i,
                  .peak_host_bytes = uint64_t{34} << 30};
  rank.memory = {
      {"weights", size_t{70} << 30}, {"keys and values", size_t{51} << 30}, {"activations", size_t{3} << 30}};
  rank.processes = {{.pid = 4000 + i, .bytes = int64_t{125} << 30}};
  rank.load_s = 190 + i % 7;
  rank.expert_tokens.resize(static_cast<size_t>(layers) * static_cast<size_t>(experts));
  rank.engine.steps = 1'200'000;
  rank.engine.num_blocks = 12'000;
  rank.engine.max_blocks_used = 11'000 + i;
  rank.engine.preemptions = i % 5;
  rank.all_to_all_s = 1;
  StepTimeline timeline;
  std::uniform_real_distribution<double> wobble(0.9, 1.1);
  double model = 0, exchange = 0;
  const double length = kHours / 4;
  for (double second = 0; second < length; second += 7) {
    const double tail = second > length - 900 ? (length - second) / 900 : 1;
    const double busy = (0.66 + 0.0002 * (i % 64)) * tail * wobble(random),
                 away = 0.17 * tail * wobble(random);
    model += 7 * busy, exchange += 7 * away;
    rank.engine.forward_s = model + exchange;
    rank.engine.agree_s += 7 * std::max(0.0, 0.98 - busy - away - 0.05) * tail;
    rank.engine.idle_s += 7 * (1 - tail) * 0.9;
    rank.engine.plan_s += 7 * 0.03 * tail;
    rank.engine.talk_s += 7 * 0.02 * tail;
    timeline.sample(second + 7, rank.engine, {.all_to_all = exchange});
  }
  rank.timeline = timeline.sums();
  return rank;
}

/// A job as moerun would report it; `names`: what users and machines are called.
JobReport report_of(const Job& job, int ranks, int layers, int experts) {
  JobReport report{.job = &job,
                   .layout = "tensor 1 × data " + std::to_string(ranks) + " × replicas 1 on " +
                             std::to_string(ranks) + " ranks",
                   .formats = "weights fp8, activations bfloat16",
                   .started = "2026-11-29T08:00:00Z",
                   .ended = "2026-11-29T18:10:00Z",
                   .num_experts = experts,
                   .total_s = kHours / 4 + 260};
  report.outcome.complete = true;
  JobProgress& progress = report.outcome.progress;
  progress.num_rows = progress.num_answered = 14'400'000;
  progress.answered_now = 3'600'000;
  progress.prompt_tokens = 8'280'000'000;
  progress.output_tokens = 2'790'000'000;
  progress.seconds = kHours / 4;
  progress.handed_out_s = kHours / 4 - 700;
  progress.first_answer_s = 60;
  progress.tokens_handed_out = 10'500'000'000;
  progress.num_blocks = int64_t{12'000} * ranks;
  progress.series = series_of(progress.num_blocks);
  std::mt19937 random(3);
  std::lognormal_distribution<double> popular(0, 0.6);
  for (int i = 0; i < ranks; ++i) report.ranks.push_back(rank_of(i, layers, experts, random));
  for (int layer = 3; layer < layers; ++layer)  // the first three are dense
    for (int expert = 0; expert < experts; ++expert)
      report.ranks[static_cast<size_t>(expert * ranks / experts)]
          .expert_tokens[static_cast<size_t>(layer * experts + expert)] =
          expert % 97 == 0 && layer % 5 == 0 ? 0 : static_cast<uint64_t>(1e6 * popular(random));
  return report;
}

void write(const std::string& path, const JobReport& report) {
  const std::string page = report_html(report);
  std::ofstream(path) << page;
  std::ofstream(path + ".json") << report_json(report);
  std::cout << path << ": " << page.size() << " bytes\n";
}

}  // namespace

int main(int, char** argv) {
  const std::string folder = argv[1];
  Job job;
  job.model.path = "/models/Qwen3-Next-480B-A35B-Instruct-FP8";
  job.output.path = "/scratch/project-1234/extraction/2026-11-29/answers-of-the-whole-corpus.h5";
  job.scheduler.max_num_seqs = 256;
  job.given.names = {"model.path", "output.path", "input.path", "sampling.max_tokens"};
  write(folder + "/large.html", report_of(job, 512, 94, 512));

  const std::string hostile =
      "</title></style><script>document.title='broken'</script><img src=x "
      "onerror=\"document.title='broken'\">'\"&amp;\x01" +
      std::string(300, 'W');
  Job bad = job;
  bad.output.path = hostile + ".h5";
  bad.model.path = bad.input.path = bad.output.jsonl = hostile;
  bad.sampling.stop = {hostile, "]]>", "<!--"};
  JobReport report = report_of(bad, 2, 2, 4);
  report.layout = report.formats = report.started = report.outcome.stop.why = hostile;
  report.outcome.complete = false;
  for (RankReport& rank : report.ranks) {
    rank.host = rank.device = rank.device_uuid = rank.all_to_all = rank.all_to_all_why = hostile;
    rank.memory.push_back({hostile, 1 << 30});
  }
  write(folder + "/hostile.html", report);
}
