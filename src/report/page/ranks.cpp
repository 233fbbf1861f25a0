#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "report/html_text.h"
#include "report/page/marks.h"
#include "report/page/sections.h"
#include "report/progress_line.h"

namespace moerun {

namespace {

/// What is longer is folded away.
constexpr size_t kMostOpenRows = 16;

std::string cell(const std::string& text, bool number = true) {
  return fmt::format("<td{}>{}</td>", number ? " class=\"n\"" : "", escaped(text));
}

int64_t device_bytes(const RankReport& rank) {
  return std::accumulate(
      rank.memory.begin(), rank.memory.end(), int64_t{0},
      [](int64_t sum, const MemoryUse& use) { return sum + static_cast<int64_t>(use.bytes); });
}

std::string blocks_text(const EngineStats& engine) {
  if (engine.num_blocks == 0) return "–";  // leads no group
  return fmt::format("{} of {}", with_commas(static_cast<uint64_t>(engine.max_blocks_used)),
                     with_commas(static_cast<uint64_t>(engine.num_blocks)));
}

std::string folded(const std::string& table, size_t rows, const std::string& name) {
  if (rows <= kMostOpenRows) return table;
  return fmt::format("<details><summary>{}</summary>{}</details>\n", name, table);
}

std::string ranks_table(const JobReport& report) {
  std::string out =
      "<div class=\"scroll\"><table><tr><th>rank</th><th>host</th><th>device</th><th class=\"n\">steps</th>"
      "<th class=\"n\">load</th><th class=\"n\">host memory<br>at most</th><th "
      "class=\"n\">device<br>memory</th>"
      "<th class=\"n\">key/value blocks<br>used at most</th><th class=\"n\">preempted</th></tr>\n";
  for (const RankReport& rank : report.ranks)
    out += fmt::format(
        "<tr><td>{}</td>{}{}{}{}{}{}{}{}</tr>\n", rank.rank, cell(rank.host, false), cell(rank.device, false),
        cell(with_commas(static_cast<uint64_t>(rank.engine.steps))), cell(duration_text(rank.load_s)),
        cell(mib_text(static_cast<int64_t>(rank.peak_host_bytes))), cell(mib_text(device_bytes(rank))),
        cell(blocks_text(rank.engine)),
        cell(rank.engine.num_blocks == 0 ? "–"
                                         : with_commas(static_cast<uint64_t>(rank.engine.preemptions))));
  return folded(out + "</table></div>\n", report.ranks.size(),
                fmt::format("All {} ranks", report.ranks.size()));
}

/// The rank of which most of the device's memory is in use, by what it is for.
std::string memory_table(const JobReport& report) {
  const auto fullest = std::max_element(
      report.ranks.begin(), report.ranks.end(),
      [](const RankReport& a, const RankReport& b) { return device_bytes(a) < device_bytes(b); });
  if (fullest->memory.empty()) return "";
  std::string out = fmt::format("<h3>Device memory of rank {}{}</h3>\n<table>", fullest->rank,
                                report.ranks.size() > 1 ? ", the fullest" : "");
  for (const MemoryUse& use : fullest->memory)
    out += fmt::format("<tr>{}{}</tr>\n", cell(use.what, false),
                       cell(mib_text(static_cast<int64_t>(use.bytes))));
  return out + "</table>\n";
}

std::string gpus_table(const JobReport& report) {
  if (!report.on_gpus()) return "";
  std::string table =
      "<div class=\"scroll\"><table>\n<tr><th>rank</th><th>host</th><th>GPU</th><th class=\"n\">process</th>"
      "<th class=\"n\">memory</th></tr>\n";
  size_t rows = 0;
  for (const RankReport& rank : report.ranks)
    for (const DeviceProcess& process : rank.processes) {
      table += fmt::format(
          "<tr><td>{}</td><td>{}</td><td>{} {}</td><td class=\"n\">{}{}</td><td class=\"n\">{}</td></tr>\n",
          rank.rank, escaped(rank.host), escaped(rank.device), escaped(rank.device_uuid), process.pid,
          process.pid == rank.pid ? " (this rank)" : "", mib_text(process.bytes));
      ++rows;
    }
  std::string out =
      "<h3>Processes that NVML sees on each GPU</h3>\n<p>The coordinator holds no process and no memory "
      "on any GPU: it is a thread of rank 0.</p>\n";
  for (const std::string& sentence : foreign_gpu_processes(report))
    out += "<p class=\"state bad\">" + escaped(sentence) + "</p>\n";
  return out + folded(table + "</table></div>\n", rows, fmt::format("All {} processes", rows));
}

/// Of many leaders, how their keys and values were used.
std::string groups_sentence(const JobReport& report) {
  std::vector<double> used;
  int64_t preemptions = 0;
  for (const RankReport& rank : report.ranks)
    if (const EngineStats& engine = rank.engine; engine.num_blocks > 0) {
      used.push_back(static_cast<double>(engine.max_blocks_used) / static_cast<double>(engine.num_blocks));
      preemptions += engine.preemptions;
    }
  if (used.empty()) return "";
  std::sort(used.begin(), used.end());
  const std::string least = percent_text(used.front()), most = percent_text(used.back());
  return fmt::format(
      "<p>Of the key/value blocks {} were in use at most{}; {} sequences were preempted.</p>\n",
      least == most ? least : least + " to " + most,
      used.size() == 1
          ? ""
          : fmt::format(" in the {} groups (median {})", used.size(), percent_text(used[used.size() / 2])),
      with_commas(static_cast<uint64_t>(preemptions)));
}

}  // namespace

std::string ranks_section(const JobReport& report) {
  return "<h2>Ranks</h2>\n" + groups_sentence(report) + ranks_table(report) + memory_table(report) +
         gpus_table(report);
}

}  // namespace moerun
