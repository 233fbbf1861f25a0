// libFuzzer's entry points (llvm.org/docs/LibFuzzer.html). The harness is named by --harness=NAME, which
// libFuzzer itself passes over.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "io/hdf5_child_main.h"
#include "tests/fuzz/harness.h"

namespace {

using moerun::fuzz::Harness;

/// The harness of this process: what libFuzzer calls takes no argument of ours.
const Harness*& chosen() {
  static const Harness* harness = nullptr;
  return harness;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  // HDF5 inputs are read by this program started again.
  if (const auto code = moerun::hdf5_child_main(*argc, *argv)) std::exit(*code);
  constexpr std::string_view kOption = "--harness=";
  for (int i = 1; i < *argc; ++i)
    if (const std::string_view argument = (*argv)[i]; argument.starts_with(kOption))
      for (const Harness& harness : moerun::fuzz::harnesses())
        if (harness.name == argument.substr(kOption.size())) chosen() = &harness;
  if (chosen()) return 0;
  std::fprintf(stderr, "give --harness=NAME, one of:");
  for (const Harness& harness : moerun::fuzz::harnesses())
    std::fprintf(stderr, " %s", std::string(harness.name).c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  moerun::fuzz::run(*chosen(), {reinterpret_cast<const char*>(data), size});
  return 0;
}
