#include "run/reports.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <functional>
#include <string>

#include "io/durable_file.h"
#include "report/finished_report.h"
#include "report/report_html.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

/// A report and the name under which the run directory keeps it.
struct ReportFile {
  std::string path;  // empty: not asked for
  const char* kept_as;
};

std::array<ReportFile, 2> files_of(const Job& job) {
  return {ReportFile{job.report.path, kKeptReportJson}, ReportFile{job.report.html, kKeptReportHtml}};
}

/// What keeps the report from being written; empty: it is.
std::string write(const std::string& path, const std::string& text) {
  try {
    // A device or a pipe would be replaced by a file.
    if (fs::exists(path) && !fs::is_regular_file(path)) return fmt::format("{} is no regular file", path);
    write_file_durably(path, {text});
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

void write_reports(const JobReport& report, RunDirectory& directory) {
  const auto texts = std::array<std::function<std::string()>, 2>{[&] { return report_json(report); },
                                                                 [&] { return report_html(report); }};
  bool owed = false;
  for (size_t i = 0; const ReportFile& file : files_of(*report.job)) {
    const auto& make_text = texts.at(i++);
    if (file.path.empty()) continue;
    const std::string text = make_text();
    const std::string why = write(file.path, text);
    if (why.empty()) continue;
    if (!report.outcome.complete) {
      fmt::print(stderr, "moerun: the report of this run is not written: {}\n", why);
      continue;
    }
    owed = true;
    std::string later = "the same command writes it";
    try {
      directory.keep_report(file.kept_as, text);
    } catch (const Error& error) {
      later = fmt::format("it cannot be kept either ({}), and the same command writes what the output says",
                          error.what());
    }
    fmt::print(stderr, "moerun: the answers are complete, but the report is not written: {}; {}\n", why,
               later);
  }
  const bool asked = !report.job->report.path.empty() || !report.job->report.html.empty();
  if (report.outcome.complete && asked && !owed) directory.remove();
}

void write_owed_reports(const Job& job, const OpenedStore& opened) {
  const FinishedOutput& output = opened.finished;
  bool owed = false;
  for (const ReportFile& file : files_of(job)) {
    if (file.path.empty() || (!opened.directory && fs::exists(file.path))) continue;
    std::string text;
    try {
      if (opened.directory) text = opened.directory->kept_report(file.kept_as).value_or("");
    } catch (const Error& error) {
      fmt::print(stderr, "moerun: the report that was kept is lost: {}\n", error.what());
    }
    const bool kept = !text.empty();
    if (!kept)
      text = file.kept_as == kKeptReportJson ? finished_report_json(output) : finished_report_html(output);
    const std::string why = write(file.path, text);
    owed |= !why.empty();
    if (!why.empty())
      fmt::print(stderr, "moerun: the report is not written: {}; the same command writes it\n", why);
    else
      fmt::print(stderr, "moerun: the report {} is written{}\n", file.path,
                 kept ? "" : ": what the output says, without what the run measured");
  }
  if (opened.directory && !owed) opened.directory->remove();
}

}  // namespace moerun
