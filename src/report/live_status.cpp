#include "report/live_status.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "io/durable_file.h"
#include "io/json_number.h"
#include "io/run_directory.h"
#include "report/series_json.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kEnded = "ended";

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// A label's value: https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
std::string label_value(const std::string& text) {
  std::string out;
  for (const char c : text)
    if (c == '\n')
      out += "\\n";
    else
      out += (c == '\\' || c == '"') ? std::string{'\\', c} : std::string{c};
  return out;
}

/// Lines of one metric after the other.
class Metrics {
 public:
  explicit Metrics(const std::string& output) : output_(label_value(output)) {}

  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ += fmt::format("# HELP moerun_{0} {2}\n# TYPE moerun_{0} {1}\n", name, type, help);
  }
  void add(double value, const std::string& labels = "") {
    text_ += fmt::format("moerun_{}{{output=\"{}\"{}}} {}\n", name_, output_, labels, value);
  }
  void add(const char* name, const char* type, const char* help, double value) {
    begin(name, type, help);
    add(value);
  }
  /// A value a group.
  void add_groups(const char* name, const char* type, const char* help,
                  const std::vector<JobProgress::Group>& groups, int64_t GroupLoad::*value) {
    begin(name, type, help);
    for (size_t i = 0; i < groups.size(); ++i)
      add(static_cast<double>(groups[i].*value), fmt::format(",group=\"{}\"", i));
  }
  std::string take() { return std::move(text_); }

 private:
  std::string output_, name_, text_;
};

/// The whole numbers of a status, as its JSON calls them.
constexpr std::pair<const char*, uint64_t JobProgress::*> kCounts[] = {
    {"rows", &JobProgress::num_rows},
    {"answered", &JobProgress::num_answered},
    {"answered_now", &JobProgress::answered_now},
    {"errors_now", &JobProgress::row_errors},
    {"prompt_tokens", &JobProgress::prompt_tokens},
    {"output_tokens", &JobProgress::output_tokens},
    {"handed_out", &JobProgress::handed_out},
    {"most_output_tokens", &JobProgress::most_output_tokens}};
constexpr std::pair<const char*, int64_t GroupLoad::*> kGroupCounts[] = {
    {"running", &GroupLoad::running},
    {"waiting", &GroupLoad::waiting},
    {"steps", &GroupLoad::steps},
    {"blocks_used", &GroupLoad::blocks_used},
    {"num_blocks", &GroupLoad::num_blocks}};

template <class Counts>
Json counts_json(const Counts& counts, const auto& of) {
  Json json;
  for (const auto& [name, member] : counts) json[name] = of.*member;
  return json;
}

template <class Counts>
void read_counts(const Counts& counts, const Json& json, auto& into) {
  for (const auto& [name, member] : counts)
    into.*member = whole_number<std::remove_cvref_t<decltype(into.*member)>>(json, name);
}

}  // namespace

std::string status_json(const JobStatus& status) {
  Json json{{"phase", status.phase}, {"process", status.process}, {"updated", status.updated}};
  json.update(counts_json(kCounts, status.progress));
  json["seconds"] = status.progress.seconds;
  json["groups"] = Json::array();
  for (const JobProgress::Group& group : status.progress.groups) {
    json["groups"].push_back(counts_json(kGroupCounts, group));
    json["groups"].back()["reported_s"] = group.reported_s;
  }
  json["series"] = series_json(status.progress.series);
  return dump_with_lists(json) + "\n";
}

JobStatus parse_status(std::string_view text) {
  try {
    const Json json = Json::parse(text);
    // Not by an initialiser: where one of its values throws, g++ 12 destroys members that it has not made.
    JobStatus status;
    json.at("phase").get_to(status.phase);
    json.at("process").get_to(status.process);
    json.at("updated").get_to(status.updated);
    JobProgress& progress = status.progress;
    read_counts(kCounts, json, progress);
    json.at("seconds").get_to(progress.seconds);
    for (const Json& group : json.at("groups")) {
      read_counts(kGroupCounts, group, progress.groups.emplace_back());
      group.at("reported_s").get_to(progress.groups.back().reported_s);
    }
    progress.sum_groups();
    progress.series = parse_series(json.at("series"));
    if (progress.num_answered > progress.num_rows || progress.answered_now > progress.num_answered)
      throw Error("more rows are answered than there are");
    return status;
  } catch (const nlohmann::json::exception& error) {
    throw Error(error.what());
  }
}

std::string status_prometheus(const JobStatus& status, const std::string& output,
                              std::optional<int> exit_code) {
  const JobProgress& progress = status.progress;
  const auto count = [](uint64_t number) { return static_cast<double>(number); };
  Metrics out(output);
  const bool ended = status.phase == kEnded;
  out.add("up", "gauge", "1 while the job runs, 0 when it has ended.", ended ? 0 : 1);
  if (exit_code) out.add("exit_code", "gauge", "The exit code of the job that has ended.", *exit_code);
  out.add("updated_timestamp_seconds", "gauge", "When this file was written.", status.updated);
  out.add("rows", "gauge", "Rows of the input.", count(progress.num_rows));
  out.add("rows_answered", "gauge", "Rows that are answered, by earlier runs of the job too.",
          count(progress.num_answered));
  out.add("rows_answered_total", "counter", "Rows that this run answered.", count(progress.answered_now));
  out.add("row_errors_total", "counter", "Rows that this run answered with an error.",
          count(progress.row_errors));
  out.add("prompt_tokens_total", "counter", "Prompt tokens computed by this run, or taken over.",
          count(progress.prompt_tokens));
  out.add("output_tokens_total", "counter", "Output tokens drawn by this run, or taken over.",
          count(progress.output_tokens));
  out.add("run_seconds", "gauge", "Seconds since this run handed out its first row.", progress.seconds);
  if (const auto left = progress.seconds_left(); left && !ended)
    out.add("seconds_left", "gauge", "Seconds that the rest will take, by the rate so far.", *left);
  const auto& groups = progress.groups;
  out.add_groups("sequences_running", "gauge", "Sequences in the steps of a group.", groups,
                 &GroupLoad::running);
  out.add_groups("sequences_waiting", "gauge", "Sequences that wait for room at a group's leader.", groups,
                 &GroupLoad::waiting);
  out.add_groups("kv_blocks_used", "gauge", "Blocks of keys and values in use.", groups,
                 &GroupLoad::blocks_used);
  out.add_groups("kv_blocks", "gauge", "Blocks of keys and values that there are.", groups,
                 &GroupLoad::num_blocks);
  out.add_groups("steps_total", "counter", "Steps of a group in this run.", groups, &GroupLoad::steps);
  return out.take();
}

JobSeries series_of_earlier_runs(const Directory& files) {
  try {
    if (files.has(kStatusName))
      return parse_status(files.read(kStatusName, kMostStatusBytes)).progress.series;
  } catch (const Error&) {  // a power cut may leave half of it, and no answer depends on it
  }
  return {};
}

LiveStatus::LiveStatus(Places places, const JobProgress& begin)
    : places_(std::move(places)), progress_(begin), process_(this_process()) {
  const std::lock_guard lock(mutex_);
  write("loading", {}, true);
}

void LiveStatus::update(const JobProgress& progress) {
  constexpr std::chrono::seconds kInterval(2);
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  if (now < due_) return;
  due_ = now + kInterval;
  progress_ = progress;
  write("running", {}, true);
}

void LiveStatus::merging() {
  const std::lock_guard lock(mutex_);
  progress_.num_answered = progress_.num_rows;
  write("merging", {}, true);
}

void LiveStatus::served(const JobProgress& progress) {
  const std::lock_guard lock(mutex_);
  progress_ = progress;
}

void LiveStatus::end(std::optional<int> exit_code, bool complete) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(ended_, true)) return;
  write(kEnded, exit_code, !complete);
}

template <class Write>
void LiveStatus::try_to(Write write) {
  try {
    write();
  } catch (const std::exception& error) {
    if (std::exchange(complained_, true)) return;
    fmt::print(stderr, "moerun: how the job stands is not written: {}\n", error.what());
  }
}

void LiveStatus::write(const char* phase, std::optional<int> exit_code, bool to_directory) {
  const JobStatus status{.progress = progress_, .phase = phase, .process = process_, .updated = unix_time()};
  if (to_directory && std::filesystem::exists(places_.run_directory))
    try_to([&] { replace_file(places_.run_directory / kStatusName, status_json(status)); });
  if (!places_.prometheus.empty())
    try_to([&] { replace_file(places_.prometheus, status_prometheus(status, places_.output, exit_code)); });
}

}  // namespace moerun
