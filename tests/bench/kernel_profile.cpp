// Where the GPU's time goes in a running program: a library that CUDA loads into it (CUDA_INJECTION64_PATH),
// which records every kernel, copy and fill through CUPTI and at the end writes a table: share of the time,
// launches, 10th, 50th and 90th percentile, name. Recorded graphs are seen kernel by kernel. Kernels that
// overlap count twice, so shares may add up to more than 100%.
//
// MOERUN_PROFILE_OUT: the file. MOERUN_PROFILE_FROM, MOERUN_PROFILE_TO: seconds after the first kernel.
#include <cupti.h>
#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr size_t kBufferBytes = size_t{8} << 20;
constexpr size_t kLongestName = 110;

struct Span {
  uint64_t begin, end;  // ns
  const std::string* name;
};

/// CUPTI's callbacks carry no pointer of ours, and the table is written when the process ends.
struct Recorder {
  std::mutex mutex;
  std::map<std::string, bool> names;  // keeps every name once
  std::vector<Span> spans;

  void add(uint64_t begin, uint64_t end, const char* name) {
    spans.push_back({begin, end, &names.emplace(name ? name : "?", true).first->first});
  }
};

Recorder& recorder() {
  static Recorder* const the_one = new Recorder;  // outlives every other static: records may come late
  return *the_one;
}

void CUPTIAPI buffer_wanted(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, kBufferBytes));
  *size = *buffer ? kBufferBytes : 0;
  *max_records = 0;
}

const char* name_of_copy(uint8_t kind) {
  if (kind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD) return "copy to the device";
  if (kind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH) return "copy to the host";
  return "copy";
}

void CUPTIAPI buffer_full(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t bytes) {
  const std::scoped_lock lock(recorder().mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, bytes, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* const at = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
      recorder().add(at->start, at->end, at->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* const at = reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
      recorder().add(at->start, at->end, name_of_copy(at->copyKind));
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* const at = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      recorder().add(at->start, at->end, "fill");
    }
  }
  std::free(buffer);
}

double seconds_of(const char* variable, double otherwise) {
  const char* const text = std::getenv(variable);
  return text ? std::atof(text) : otherwise;
}

std::string readable(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return (status == 0 ? std::string(text.get()) : name).substr(0, kLongestName);
}

void write_table() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::scoped_lock lock(recorder().mutex);
  std::vector<Span>& spans = recorder().spans;
  const char* const path = std::getenv("MOERUN_PROFILE_OUT");
  if (spans.empty() || !path) return;  // a child process that launched nothing
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  const uint64_t first = spans.front().begin;
  const double from = seconds_of("MOERUN_PROFILE_FROM", 0), to = seconds_of("MOERUN_PROFILE_TO", 1e9);
  std::map<const std::string*, std::vector<double>> us_of;  // by name
  double busy = 0;
  uint64_t begin = 0, end = 0;
  size_t launches = 0;
  for (const Span& span : spans) {
    const double at = static_cast<double>(span.begin - first) / 1e9;
    if (at < from || at > to) continue;
    if (begin == 0) begin = end = span.begin;
    if (span.end > end) busy += static_cast<double>(span.end - std::max(span.begin, end));
    end = std::max(end, span.end);
    us_of[span.name].push_back(static_cast<double>(span.end - span.begin) / 1e3);
    ++launches;
  }
  const double whole_us = static_cast<double>(end - begin) / 1e3;
  struct Row {
    double sum_us;
    std::string text;
  };
  std::vector<Row> rows;
  for (auto& [name, us] : us_of) {
    std::sort(us.begin(), us.end());
    double sum = 0;
    for (const double value : us) sum += value;
    const auto percentile = [&](size_t p) { return us[(us.size() - 1) * p / 100]; };
    rows.push_back(
        {sum, fmt::format("{:5.1f}% {:8} {:8.1f} {:8.1f} {:8.1f}  {}\n", 100 * sum / whole_us, us.size(),
                          percentile(10), percentile(50), percentile(90), readable(*name))});
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.sum_us > b.sum_us; });
  std::ofstream out(path);
  out << fmt::format(
      "{:.3f} s, {} launches, something runs {:.1f}% of the time\n share launches   p10 us   p50 us   p90 us "
      " kernel\n",
      whole_us / 1e6, launches, 100 * busy / 1e3 / whole_us);
  for (const Row& row : rows) out << row.text;
}

}  // namespace

/// Called by CUDA at its first use in a process.
extern "C" int InitializeInjection() {
  const bool works = cuptiActivityRegisterCallbacks(buffer_wanted, buffer_full) == CUPTI_SUCCESS &&
                     cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS &&
                     cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) == CUPTI_SUCCESS &&
                     cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET) == CUPTI_SUCCESS;
  if (!works) fmt::print(stderr, "kernel_profile: CUPTI refuses to record\n");
  std::atexit(write_table);
  return works;
}
