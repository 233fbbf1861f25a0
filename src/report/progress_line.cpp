#include "report/progress_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace moerun {

std::string clock_text(double seconds) {
  const int64_t whole = std::llround(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string with_commas(uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string mib_text(int64_t bytes) {
  return bytes < 0 ? "unknown" : fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string progress_text(const JobProgress& progress) {
  const double seconds = std::max(progress.seconds, 1e-3);
  const auto tokens = [&](uint64_t count, const char* kind) {
    return fmt::format("{} {} tokens ({}/s)", with_commas(count), kind,
                       with_commas(static_cast<uint64_t>(static_cast<double>(count) / seconds)));
  };
  std::string text = fmt::format("{}/{} rows  {}  {}  {} running", with_commas(progress.num_answered),
                                 with_commas(progress.num_rows), tokens(progress.output_tokens, "output"),
                                 tokens(progress.prompt_tokens, "prompt"), progress.running);
  if (progress.row_errors > 0) text += fmt::format("  {} errors", with_commas(progress.row_errors));
  if (const auto left = progress.seconds_left())
    text += fmt::format("  {}{} left", progress.answered_now > 0 ? "" : "at most ", clock_text(*left));
  return text;
}

ProgressLine::ProgressLine(bool terminal) : terminal_(terminal) {}

void ProgressLine::update(const JobProgress& progress) {
  using std::chrono::milliseconds;
  const auto now = Clock::now();
  if (now < due_) return;
  // In a log: after 2 s, then at pauses that grow with the job's age up to half a minute.
  const auto age = std::chrono::duration_cast<milliseconds>(now - began_);
  due_ = now + (terminal_ ? milliseconds(200) : std::clamp(age, milliseconds(2000), milliseconds(30000)));
  if (!terminal_ && age < milliseconds(1000)) return;
  print(progress);
}

void ProgressLine::finish(const JobProgress& progress) {
  if (terminal_) {
    print(progress);
    fmt::print(stderr, "\n");
  } else if (!shown_) {
    print(progress);
  }
}

void ProgressLine::print(const JobProgress& progress) {
  const std::string text = progress_text(progress);
  shown_ = true;
  if (!terminal_) {
    fmt::print(stderr, "{}\n", text);
    return;
  }
  width_ = std::max(width_, text.size());
  fmt::print(stderr, "\r{:<{}}", text, width_);
  std::fflush(stderr);
}

}  // namespace moerun
