#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/version.h"
#include "moerun/wire.h"
#include "report/expert_load.h"
#include "report/progress_line.h"
#include "report/series_json.h"
#include "report/settings.h"
#include "report/times.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

template <typename Io, typename Report>
void rank_fields(Io&& io, Report& r) {
  io(r.rank), io(r.replica), io(r.data), io(r.tensor), io(r.host), io(r.device), io(r.device_uuid);
  io(r.all_to_all), io(r.all_to_all_why), io(r.pid), io(r.peak_host_bytes), io(r.expert_tokens), io(r.load_s),
      io(r.all_to_all_s), io(r.tensor_s);
  auto& e = r.engine;
  io(e.steps), io(e.prompt_tokens), io(e.prompt_distinct), io(e.truncated_rows), io(e.repeated_rows),
      io(e.prompt_truncated), io(e.output_tokens), io(e.preemptions), io(e.swaps), io(e.max_blocks_used);
  io(e.num_blocks), io(e.forward_s), io(e.agree_s), io(e.idle_s), io(e.plan_s), io(e.answer_s);
  io(e.talk_s), io(e.mask_s), io(e.first_step_s);
  io(e.full_decode_steps.steps), io(e.full_decode_steps.seconds);
  auto& p = r.placement;
  io(p.placements), io(p.loads), io(p.counted_tokens), io(p.expert_tokens), io(p.copies), io(p.seconds);
}

int64_t sum_of(const JobReport& report, int64_t EngineStats::*count) {
  int64_t sum = 0;
  for (const RankReport& rank : report.ranks) sum += rank.engine.*count;
  return sum;
}

/// Null where prompts share nothing because the job says so.
Json prompt_tokens_distinct(const JobReport& report) {
  int64_t sum = 0;
  for (const RankReport& rank : report.ranks) sum += std::max<int64_t>(rank.engine.prompt_distinct, 0);
  return report.job->scheduler.prefix_sharing ? Json(sum) : Json();
}

Json rank_json(const RankReport& rank) {
  Json memory = Json::object();
  for (const MemoryUse& use : rank.memory) memory[use.what] = use.bytes;
  Json out{{"rank", rank.rank},
           {"replica", rank.replica},
           {"data", rank.data},
           {"tensor", rank.tensor},
           {"host", rank.host},
           {"pid", rank.pid},
           {"device", rank.device},
           {"load_s", rank.load_s},
           {"steps", rank.engine.steps},
           {"forward_s", rank.engine.forward_s},
           {"agreement_s", rank.engine.agree_s},
           {"idle_s", rank.engine.idle_s},
           {"plan_s", rank.engine.plan_s},
           {"answer_s", rank.engine.answer_s},
           {"talk_s", rank.engine.talk_s},
           {"mask_s", rank.engine.mask_s},
           {"first_step_s", rank.engine.first_step_s},
           {"peak_host_bytes", rank.peak_host_bytes},
           {"memory_bytes", memory}};
  Json& timeline = out["timeline"] = {{"bin_s", rank.timeline.bin_s()}, {"end_s", rank.timeline.end_s()}};
  for (size_t part = 0; part < kNumTimeParts; ++part) {
    const std::vector<double> seconds = rank.timeline.column(part);
    if (std::any_of(seconds.begin(), seconds.end(), [](double value) { return value > 0; }))
      timeline[kTimeParts[part]] = short_numbers(seconds);
  }
  if (rank.all_to_all_s >= 0) out["all_to_all_s"] = rank.all_to_all_s;
  if (rank.tensor_s >= 0) out["tensor_parallel_s"] = rank.tensor_s;
  if (const StepCount& full = rank.engine.full_decode_steps; full.steps > 0)
    out["full_decode_steps"] = {{"steps", full.steps}, {"seconds", full.seconds}};
  if (rank.engine.num_blocks > 0)  // a leader
    out["key_value"] = {{"blocks", rank.engine.num_blocks},
                        {"most_used", rank.engine.max_blocks_used},
                        {"preemptions", rank.engine.preemptions},
                        {"swaps", rank.engine.swaps}};
  if (!rank.device_uuid.empty()) {
    out["gpu_uuid"] = rank.device_uuid;
    for (const DeviceProcess& process : rank.processes)
      out["gpu_processes"].push_back({{"pid", process.pid}, {"bytes", process.bytes}});
  }
  return out;
}

Json placement_json(const JobReport& report) {
  const PlacementReport& least = least_placed(report);
  Json out{{"slots_a_layer", report.job->parallel.redundant_experts}, {"placements", least.placements}};
  if (least.placements == 0) return out;
  double seconds = 0;
  int64_t loads = 0;
  Json copies = Json::array();
  for (const RankReport& rank : report.ranks) {
    seconds = std::max(seconds, rank.placement.seconds);
    loads += rank.placement.loads;
    for (const PlacedCopy& copy : rank.placement.copies)
      copies.push_back(
          {{"layer", copy.layer}, {"expert", copy.expert}, {"rank", rank.rank}, {"share", copy.share}});
  }
  out.update({{"tokens_before", least.counted_tokens}, {"experts_loaded", loads}, {"seconds", seconds}});
  for (const auto& [name, period] :
       {std::pair{"before", LoadPeriod::before_placement}, {"after", LoadPeriod::after_placement}}) {
    const ExpertLoad load = expert_load(report, period);
    out[name] = {{"max_over_mean_of_ranks", load.max_over_mean},
                 {"max_over_mean_of_ranks_by_layer", load.max_over_mean_of_layer},
                 {"tokens_of_rank", load.of_rank}};
  }
  out["copies"] = std::move(copies);
  return out;
}

}  // namespace

std::string pack(const RankReport& report) {
  WireWriter out;
  rank_fields([&](const auto& value) { out.put(value); }, report);
  std::vector<std::vector<double>> timeline;
  for (size_t part = 0; part < kNumTimeParts; ++part) timeline.push_back(report.timeline.column(part));
  out.put(report.timeline.bin_s()), out.put(report.timeline.end_s()), out.put(timeline);
  out.put(static_cast<uint64_t>(report.memory.size()));
  for (const MemoryUse& use : report.memory) out.put(use.what), out.put(static_cast<uint64_t>(use.bytes));
  out.put(static_cast<uint64_t>(report.processes.size()));
  for (const DeviceProcess& process : report.processes) out.put(process.pid), out.put(process.bytes);
  return out.take();
}

RankReport unpack_rank_report(const std::string& bytes) {
  WireReader in(bytes);
  RankReport report;
  rank_fields([&](auto& value) { in.get(value); }, report);
  const auto bin_s = in.get<double>(), end_s = in.get<double>();
  report.timeline =
      BinnedSums(in.get<std::vector<std::vector<double>>>(), StepTimeline::kMostBins, bin_s, end_s);
  for (auto count = in.get<uint64_t>(); count > 0; --count) {
    MemoryUse& use = report.memory.emplace_back();
    in.get(use.what);
    use.bytes = in.get<uint64_t>();
  }
  for (auto count = in.get<uint64_t>(); count > 0; --count) {
    DeviceProcess& process = report.processes.emplace_back();
    in.get(process.pid), in.get(process.bytes);
  }
  return report;
}

std::vector<std::string> foreign_gpu_processes(const JobReport& report) {
  std::vector<std::string> sentences;
  for (const RankReport& at : report.ranks)
    for (const DeviceProcess& process : at.processes)
      for (const RankReport& other : report.ranks) {
        // Process ids mean something on one host alone; ranks that share a GPU both belong there.
        if (other.host != at.host || other.pid != process.pid || other.device_uuid == at.device_uuid)
          continue;
        sentences.push_back(
            fmt::format("the GPU of rank {} (host {}, {}) also carries the process of rank {} (pid {}, {})",
                        at.rank, at.host, at.device_uuid, other.rank, other.pid, mib_text(process.bytes)));
      }
  return sentences;
}

std::string report_json(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const ExpertLoad load = expert_load(report, LoadPeriod::all);
  const StepTime time = step_time(report);
  const JobTimes times = job_times(report);
  const auto ranks = static_cast<double>(report.ranks.size());
  const double seconds = progress.seconds;
  const std::optional<double> steady = progress.steady_tokens_per_s();
  Json out{{"program", fmt::format("moerun {} ({})", version(), git_revision())},
           {"started", report.started},
           {"ended", report.ended},
           {"exit_code", report.exit_code},
           {"complete", report.outcome.complete},
           {"stopped_by", report.outcome.stop.why},
           {"layout", report.layout},
           {"formats", report.formats},
           {"rows",
            {{"total", progress.num_rows},
             {"answered", progress.num_answered},
             {"answered_now", progress.answered_now},
             {"errors_now", progress.row_errors},
             {"truncated_now", sum_of(report, &EngineStats::truncated_rows)},
             {"repeated_now", sum_of(report, &EngineStats::repeated_rows)}}},
           {"tokens",
            {{"prompt", progress.prompt_tokens},
             {"prompt_computed", sum_of(report, &EngineStats::prompt_tokens)},
             {"prompt_distinct", prompt_tokens_distinct(report)},
             {"prompt_truncated", sum_of(report, &EngineStats::prompt_truncated)},
             {"output", progress.output_tokens},
             {"output_computed", sum_of(report, &EngineStats::output_tokens)}}},
           {"throughput",
            {{"requests_per_s", per_second(progress.answered_now, seconds)},
             {"steady_tokens_per_s", steady ? Json(*steady) : Json()},
             {"prompt_tokens_per_s", per_second(progress.prompt_tokens, seconds)},
             {"output_tokens_per_s", per_second(progress.output_tokens, seconds)},
             {"total_tokens_per_s", per_second(progress.prompt_tokens + progress.output_tokens, seconds)},
             {"output_tokens_per_s_per_rank", per_second(progress.output_tokens, seconds) / ranks},
             {"total_tokens_per_s_per_rank",
              per_second(progress.prompt_tokens + progress.output_tokens, seconds) / ranks}}},
           {"time_s",
            {{"total", report.total_s},
             {"load", times.load},
             {"warm_up", times.warm_up},
             {"steady", times.steady},
             {"tail", times.tail},
             {"merge", times.merge}}},
           {"step_time_s", {{"compute", time.compute}, {"waiting", time.waiting}}},
           {"all_to_all",
            {{"used", report.ranks.front().all_to_all}, {"why", report.ranks.front().all_to_all_why}}},
           {"expert_load",
            {{"max_over_mean_of_ranks", load.max_over_mean},
             {"max_over_mean_of_ranks_by_layer", load.max_over_mean_of_layer},
             {"tokens_of_rank", load.of_rank},
             {"tokens_of_expert", load.of_expert},
             {"tokens_of_expert_by_layer", load.of_layer}}},
           {"settings", settings_json(*report.job)},
           {"series", series_json(progress.series)},
           {"coordinator",
            {{"gpu_processes", 0},
             {"gpu_bytes", 0},
             {"processor_s", report.outcome.processor_s},
             {"messages_sent", report.outcome.traffic.messages_sent},
             {"bytes_sent", report.outcome.traffic.bytes_sent},
             {"messages_received", report.outcome.traffic.messages_received},
             {"bytes_received", report.outcome.traffic.bytes_received}}},
           {"ranks", Json::array()}};
  if (report.job->parallel.redundant_experts > 0) out["redundant_experts"] = placement_json(report);
  if (time.split) {
    out["step_time_s"]["all_to_all"] = time.all_to_all;
    out["step_time_s"]["tensor_parallel"] = time.tensor;
  }
  if (report.on_gpus()) out["foreign_gpu_processes"] = foreign_gpu_processes(report);
  for (const RankReport& rank : report.ranks) out["ranks"].push_back(rank_json(rank));
  return dump_with_lists(out) + "\n";
}

namespace {

/// Where they are, as a line for people.
std::string answers_text(const Job::Output& output) {
  return fmt::format("  answers     {}{}\n", output.path, output.jsonl.empty() ? "" : " and " + output.jsonl);
}

/// What rows had in common, as lines for people.
std::string prompts_text(const JobReport& report) {
  std::string text;
  const auto computed = static_cast<uint64_t>(sum_of(report, &EngineStats::prompt_tokens));
  if (const uint64_t asked = report.outcome.progress.prompt_tokens; computed < asked)
    text += fmt::format("  prefixes    {} of {} prompt tokens were computed\n", with_commas(computed),
                        with_commas(asked));
  if (const auto rows = static_cast<uint64_t>(sum_of(report, &EngineStats::repeated_rows)); rows > 0)
    text += fmt::format("  repeated    {} rows were answered as others with the same prompt and sampling\n",
                        with_commas(rows));
  return text;
}

}  // namespace

std::string report_text(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const double seconds = progress.seconds;
  const ExpertLoad load = expert_load(report, LoadPeriod::all);
  const StepTime time = step_time(report);
  const JobTimes times = job_times(report);
  const auto ranks = static_cast<double>(report.ranks.size());
  const auto rate = [&](uint64_t count) {
    return with_commas(static_cast<uint64_t>(per_second(count, seconds)));
  };
  std::string text = fmt::format("moerun: {} of {} rows answered ({} in this run, {} with errors) in {}\n",
                                 with_commas(progress.num_answered), with_commas(progress.num_rows),
                                 with_commas(progress.answered_now), with_commas(progress.row_errors),
                                 clock_text(report.total_s));
  if (report.outcome.complete) text += answers_text(report.job->output);
  text += fmt::format("  layout      {}\n", report.layout);
  text += fmt::format("  formats     {}\n", report.formats);
  const uint64_t tokens = progress.prompt_tokens + progress.output_tokens;
  text += fmt::format(
      "  throughput  {:.2f} requests/s, {} prompt + {} output = {} tokens/s; a rank {:.0f} output, {:.0f} in "
      "all\n",
      per_second(progress.answered_now, seconds), rate(progress.prompt_tokens), rate(progress.output_tokens),
      rate(tokens), per_second(progress.output_tokens, seconds) / ranks, per_second(tokens, seconds) / ranks);
  text += fmt::format("  steady      {}\n", steady_text(progress));
  text += prompts_text(report);
  if (const int64_t rows = sum_of(report, &EngineStats::truncated_rows); rows > 0)
    text += fmt::format("  truncated   {} prompts, by {} tokens in all\n",
                        with_commas(static_cast<uint64_t>(rows)),
                        with_commas(static_cast<uint64_t>(sum_of(report, &EngineStats::prompt_truncated))));
  text += fmt::format(
      "  time        load {:.1f} s, warm-up {:.1f} s, steady {:.1f} s, tail {:.1f} s, merge {:.1f} s\n",
      times.load, times.warm_up, times.steady, times.tail, times.merge);
  if (const double whole = time.whole(); whole > 0)
    text += time.split
                ? fmt::format(
                      "  step time   {:.0f}% compute, {:.0f}% all-to-all ({}), {:.0f}% tensor-parallel "
                      "exchange, {:.0f}% waiting\n",
                      100 * time.compute / whole, 100 * time.all_to_all / whole,
                      report.ranks.front().all_to_all, 100 * time.tensor / whole, 100 * time.waiting / whole)
                : fmt::format("  step time   {:.0f}% model with its all-to-all ({}), {:.0f}% waiting\n",
                              100 * time.compute / whole, report.ranks.front().all_to_all,
                              100 * time.waiting / whole);
  if (load.max_over_mean > 0)
    text += fmt::format("  experts     busiest rank {:.2f} × the mean, in the worst layer {:.2f} ×\n",
                        load.max_over_mean, load.worst_layer());
  if (report.job->parallel.redundant_experts > 0)
    text += "  redundant   " + placement_sentence(report) + "\n";
  for (const RankReport& rank : report.ranks) {
    if (rank.engine.num_blocks > 0)
      text += fmt::format(
          "  rank {:<6} {} of {} key/value blocks used at most, {} preemptions ({} to the host)\n", rank.rank,
          with_commas(static_cast<uint64_t>(rank.engine.max_blocks_used)),
          with_commas(static_cast<uint64_t>(rank.engine.num_blocks)), rank.engine.preemptions,
          rank.engine.swaps);
    for (const DeviceProcess& process : rank.processes)
      text +=
          fmt::format("  rank {:<6} {} {}: pid {}{}, {}\n", rank.rank, rank.device, rank.device_uuid,
                      process.pid, process.pid == rank.pid ? " (this rank)" : "", mib_text(process.bytes));
  }
  if (report.on_gpus())
    text += "  coordinator no process and no memory on any GPU: it is a thread of rank 0\n";
  return text;
}

}  // namespace moerun
