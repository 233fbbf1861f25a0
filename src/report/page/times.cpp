#include "report/times.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "report/html_text.h"
#include "report/page/marks.h"
#include "report/page/sections.h"

namespace moerun {

namespace {

/// What a strip shows: some of TimePart's together, in the order from below to above.
struct Shown {
  const char *name, *color;
  std::vector<TimePart> parts;
};
constexpr size_t kNumShown = 6;

std::array<Shown, kNumShown> shown_parts(bool split) {
  return {{{split ? "model" : "model with its exchanges", "f0", {TimePart::model}},
           {"all-to-all", "f1", {TimePart::all_to_all}},
           {"tensor-parallel exchange", "f3", {TimePart::tensor}},
           {"host: plans, answers, rows",
            "f2",
            {TimePart::plan, TimePart::answer, TimePart::talk, TimePart::mask}},
           {"agreement: waiting for other ranks", "f4", {TimePart::agreement}},
           {"idle: no rows", "f5", {TimePart::idle}}}};
}
constexpr std::array<const char*, kNumShown> kShort{"model", "all-to-all", "tensor",
                                                    "host",  "agreement",  "idle"};

/// The mean of some ranks: shares of each bin, and of the whole.
struct Shares {
  std::vector<double> x;  // [bins + 1] of a plot
  std::array<std::vector<double>, kNumShown> of_bin;
  std::array<double, kNumShown> whole{};
  double rest = 0;
};

Shares shares_of(std::span<const RankReport> ranks, const std::array<Shown, kNumShown>& shown, double end_s) {
  double bin_s = 0, seconds = 0;
  for (const RankReport& rank : ranks) {
    bin_s = std::max(bin_s, rank.timeline.bin_s());
    seconds += rank.timeline.end_s();
  }
  const auto bins = static_cast<size_t>(std::ceil(end_s / bin_s));
  const auto count = static_cast<double>(ranks.size());
  Shares shares;
  for (size_t bin = 0; bin < bins; ++bin)
    shares.x.push_back(kPlotWidth * bin_s * static_cast<double>(bin) / end_s);
  shares.x.push_back(kPlotWidth);
  shares.rest = 1;
  for (size_t i = 0; i < kNumShown; ++i) {
    std::vector<double>& of_bin = shares.of_bin[i];
    of_bin.resize(bins);
    for (const RankReport& rank : ranks) {
      // Bins are longer by powers of two where one rank's loop was longer.
      const auto factor = static_cast<size_t>(std::llround(bin_s / rank.timeline.bin_s()));
      for (const TimePart part : shown[i].parts) {
        const std::vector<double> sums = rank.timeline.column(static_cast<size_t>(part));
        for (size_t bin = 0; bin < sums.size(); ++bin) {
          of_bin[std::min(bin / factor, bins - 1)] += sums[bin];
          shares.whole[i] += sums[bin];
        }
      }
    }
    for (size_t bin = 0; bin < bins; ++bin) {
      const double length = std::min(bin_s, end_s - bin_s * static_cast<double>(bin));
      of_bin[bin] /= std::max(length * count, 1e-9);
    }
    shares.whole[i] /= std::max(seconds, 1e-9);
    shares.rest -= shares.whole[i];
  }
  shares.rest = std::max(shares.rest, 0.0);
  return shares;
}

/// Parts on top of one another; the last is drawn first, and the others over it.
std::string strip(const Shares& shares, const std::array<Shown, kNumShown>& shown) {
  std::vector<double> height(shares.of_bin[0].size());
  std::array<std::vector<double>, kNumShown> tops;
  for (size_t i = 0; i < kNumShown; ++i) {
    for (size_t bin = 0; bin < height.size(); ++bin) height[bin] += shares.of_bin[i][bin];
    tops[i] = height;
  }
  std::string out = fmt::format(
      "<svg class=\"flat\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
      kPlotWidth, kPlotHeight);
  for (size_t i = kNumShown; i-- > 0;)
    if (shares.whole[i] > 0)
      out += fmt::format("<path class=\"{}\" d=\"{}\"/>", shown[i].color,
                         steps_path(shares.x, tops[i], 1, true));
  return out + "</svg>";
}

std::string job_bar(const JobReport& report) {
  const JobTimes times = job_times(report);
  const std::pair<const char*, double> parts[] = {{"load", times.load},
                                                  {"warm-up", times.warm_up},
                                                  {"steady", times.steady},
                                                  {"tail", times.tail},
                                                  {"merge", times.merge}};
  constexpr const char* kColors[] = {"f5", "f4", "f0", "f1", "f2"};
  std::string bar;
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t i = 0; i < std::size(parts); ++i) {
    bar += fmt::format("<i class=\"{}\" style=\"flex:{:.4f} 1 0\"></i>", kColors[i], parts[i].second);
    names.emplace_back(kColors[i], fmt::format("{} {}", parts[i].first, duration_text(parts[i].second)));
  }
  return "<h2>Time of the job</h2>\n<div class=\"bar\" aria-hidden=\"true\">" + bar + "</div>\n" +
         legend(names);
}

struct Row {
  std::string name;
  std::span<const RankReport> ranks;
};

/// Every rank, or as many groups of ranks that follow one another as can be told apart.
std::vector<Row> rows_of(const JobReport& report) {
  constexpr size_t kMostRows = 16;
  const std::span<const RankReport> all(report.ranks);
  std::vector<Row> rows;
  if (all.size() > 1) rows.push_back({"all", all});
  const size_t each = (all.size() + kMostRows - 1) / kMostRows;
  for (size_t begin = 0; begin < all.size(); begin += each) {
    const size_t end = std::min(begin + each, all.size());
    rows.push_back({end - begin == 1 ? std::to_string(all[begin].rank)
                                     : fmt::format("{}–{}", all[begin].rank, all[end - 1].rank),
                    all.subspan(begin, end - begin)});
  }
  return rows;
}

}  // namespace

std::string times_section(const JobReport& report) {
  std::string out = job_bar(report);
  double end_s = 0;
  bool split = false;
  for (const RankReport& rank : report.ranks) {
    end_s = std::max(end_s, rank.timeline.end_s());
    split = split || rank.all_to_all_s > 0 || rank.tensor_s > 0;
  }
  if (end_s <= 0) return out;
  const auto shown = shown_parts(split);
  const std::vector<Row> rows = rows_of(report);
  std::vector<Shares> shares;
  shares.reserve(rows.size());
  for (const Row& row : rows) shares.push_back(shares_of(row.ranks, shown, end_s));
  std::vector<size_t> used;  // what no rank ever did has no column
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t i = 0; i < kNumShown; ++i)
    if (std::any_of(shares.begin(), shares.end(), [&](const Shares& one) { return one.whole[i] > 0; })) {
      used.push_back(i);
      names.emplace_back(shown[i].color, shown[i].name);
    }
  out += fmt::format(
      "<h2>Time of each rank</h2>\n<p>From left to right the {} of this run in which rows were in work; from "
      "below to above what the rank’s host did or waited for{}. What is left empty is the rest: broadcasts "
      "within a tensor-parallel group, and the like.</p>\n{}",
      duration_text(end_s), rows.size() < report.ranks.size() ? ", the mean of some ranks in each row" : "",
      legend(names));
  out += "<div class=\"scroll\"><table class=\"ranks\"><tr><th>rank</th><th class=\"strip\">over time</th>";
  for (const size_t i : used) out += fmt::format("<th class=\"n\">{}</th>", kShort[i]);
  out += "<th class=\"n\">rest</th></tr>\n";
  for (size_t row = 0; row < rows.size(); ++row) {
    out += fmt::format("<tr{}><td>{}</td><td class=\"strip\"><div>{}</div></td>",
                       rows[row].name == "all" ? " class=\"all\"" : "", rows[row].name,
                       strip(shares[row], shown));
    for (const size_t i : used)
      out += fmt::format("<td class=\"n\">{}</td>", percent_text(shares[row].whole[i]));
    out += fmt::format("<td class=\"n\">{}</td></tr>\n", percent_text(shares[row].rest));
  }
  return out + "</table></div>\n";
}

}  // namespace moerun
